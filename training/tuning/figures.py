"""The figures of each tuning method that are shown beside its loss while it trains."""

_PREFERENCES = {"rewards/margins": "margin {:.3f}", "rewards/accuracies": "accuracy {:.0%}"}
_ONLINE = {
    "reward": "reward {:.3f}",
    "kl": "KL {:.3f}",
    "completions/mean_length": "{:.1f} tokens per completion",
}
# Stage: name of a logged figure to its format.
FIGURES = {
    "sft": {"mean_token_accuracy": "token accuracy {:.0%}"},
    "reward": {"margin": "margin {:.3f}", "accuracy": "accuracy {:.0%}"},
    "dpo": _PREFERENCES,
    "kto": {"rewards/margins": "margin {:.3f}", "kl": "KL {:.3f}"},
    "orpo": _PREFERENCES,
    "grpo": _ONLINE,
    "rloo": _ONLINE,
    "classify": {"accuracy": "accuracy {:.1%}", "f1": "F1 {:.3f}"},
}
