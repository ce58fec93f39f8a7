"""Rules for keys of TRL recipes that TRL takes but ignores, rejects late, or reads as something else.

The tables: BOUNDS and CHOICES of values, REJECTED keys, and keys that have no effect WITHOUT another one. Keys that are
in none of them do what their help says, or TRL itself rejects a wrong value before training.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from training.common.errors import UserError, nearest
from training.common.packages import how_to_install
from training.stages.recipe import check_bounds

_COUNT, _SHARE = {"at_least": 1}, {"at_least": 0, "at_most": 1}
_SEED = {"at_least": 0, "below": 2**32}  # numpy's
# Bounds of numbers, see `training.stages.recipe.option`. Null, text and the default always pass: max_steps is -1.
BOUNDS: dict[str, dict[str, float]] = {
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "max_steps": _COUNT,
    "num_train_epochs": {"above": 0},
    "logging_steps": {"above": 0},
    "eval_steps": {"above": 0},
    "eval_delay": {"at_least": 0},
    "save_steps": {"above": 0},
    "save_total_limit": _COUNT,
    "seed": _SEED,
    "data_seed": _SEED,
    "test_split_size": {"above": 0, "below": 1},
    "dataset_num_proc": _COUNT,
    "dataloader_num_workers": {"at_least": 0},
    "dataloader_prefetch_factor": _COUNT,
    "ddp_timeout": {"above": 0},
    "learning_rate": {"at_least": 0},
    "weight_decay": {"at_least": 0},
    "adam_beta1": {"at_least": 0, "below": 1},
    "adam_beta2": {"at_least": 0, "below": 1},
    "adam_epsilon": {"at_least": 0},
    "warmup_steps": {"at_least": 0},
    "max_grad_norm": {"at_least": 0},
    "label_smoothing_factor": {"at_least": 0, "below": 1},
    "neftune_noise_alpha": {"at_least": 0},
    "router_aux_loss_coef": {"at_least": 0},
    "lora_r": _COUNT,
    "lora_alpha": {"above": 0},
    "lora_dropout": {"at_least": 0, "below": 1},
    "max_length": _COUNT,
    "pad_to_multiple_of": _COUNT,
    "beta": {"at_least": 0},
    "label_smoothing": {"at_least": 0, "below": 1},
    "ld_alpha": _SHARE,
    "discopop_tau": {"above": 0},
    "desirable_weight": {"at_least": 0},
    "undesirable_weight": {"at_least": 0},
    "center_rewards_coefficient": {"at_least": 0},
    "precompute_ref_batch_size": _COUNT,
    "ref_model_mixup_alpha": _SHARE,
    "ref_model_sync_steps": _COUNT,
    "num_generations": {"at_least": 2},
    "num_generations_eval": _COUNT,
    "num_iterations": _COUNT,
    "generation_batch_size": _COUNT,
    "steps_per_generation": _COUNT,
    "max_completion_length": _COUNT,
    "max_tool_calling_iterations": _COUNT,
    "num_completions_to_print": _COUNT,
    "temperature": {"above": 0},
    "top_p": {"above": 0, "at_most": 1},
    "top_k": {"at_least": 0},
    "min_p": _SHARE,
    "repetition_penalty": {"above": 0},
    "epsilon": {"above": 0},
    "epsilon_high": {"above": 0},
    "delta": {"above": 0},
    "sapo_temperature_neg": {"above": 0},
    "sapo_temperature_pos": {"above": 0},
    "top_entropy_quantile": _SHARE,
    "vllm_gpu_memory_utilization": {"above": 0, "at_most": 1},
    "vllm_max_model_length": _COUNT,
    "vllm_tensor_parallel_size": _COUNT,
}
# Of a preference loss, beta 0 leaves nothing to learn.
_BOUNDS_OF: dict[str, dict[str, dict[str, float]]] = {"dpo": {"beta": {"above": 0}}, "kto": {"beta": {"above": 0}}}

_LOG_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")
# Texts of which TRL takes another for the default, or notices it in the first training step.
CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "ddp_backend": ("nccl", "mpi", "xccl", "gloo", "hccl"),
    "log_level": _LOG_LEVELS,
    "log_level_replica": _LOG_LEVELS,
    "truncation_mode": ("keep_start", "keep_end"),
    "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}

# Optional packages, by key and value, that are otherwise missed when training begins.
PACKAGES: dict[str, dict[Any, str]] = {
    "attn_implementation": {"flash_attention_2": "flash_attn"},
    "use_liger_kernel": {True: "liger_kernel"},
    "use_vllm": {True: "vllm"},
}

ALL = frozenset({"sft", "reward", "dpo", "kto", "orpo", "grpo", "rloo"})
_PREFERENCES = frozenset({"reward", "dpo", "kto", "orpo"})
_ONLINE = frozenset({"grpo", "rloo"})


@dataclass(frozen=True)
class Rejection:
    """Keys that a recipe may not give.

    Attributes:
        keys: their names.
        reason: what would happen, and what to do instead.
        stages: in which they are rejected.
        when: given the value of a key and those of the whole recipe, whether it is rejected. None: any value but the
            default is rejected.
    """

    keys: tuple[str, ...]
    reason: str
    stages: frozenset[str] = ALL
    when: Callable[[Any, dict[str, Any]], bool] | None = None


REJECTED = (
    Rejection(
        ("resume_from_checkpoint",),
        "has no effect: the same command resumes from its own newest checkpoint; remove the key. To start from other "
        "weights, set model_name_or_path",
    ),
    Rejection(
        ("push_to_hub", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
        "would upload unfinished checkpoints; remove the key, and run scratch push with the output",
    ),
    Rejection(("hub_token",), "would be copied into the output; remove the key, and run hf auth login"),
    Rejection(
        ("model_init_kwargs",),
        "has no effect: the model is loaded before the trainer; set dtype, attn_implementation, model_revision or "
        "trust_remote_code",
    ),
    Rejection(
        ("do_train",), "has no effect: the stage trains; remove the key", when=lambda value, values: value is False
    ),
    Rejection(
        ("parallelism_config",),
        "is an object that a recipe cannot hold; remove the key, and name a file in accelerate launch --config_file",
    ),
    Rejection(("do_predict",), "has no effect; remove the key, and run scratch evaluate with the output"),
    Rejection(
        ("include_for_metrics", "batch_eval_metrics"),
        "has no effect: these trainers compute no metrics of their own; remove the key",
    ),
    Rejection(("ignore_bias_buffers",), "has no effect; set ddp_broadcast_buffers: false"),
    Rejection(
        ("dataset_name",),
        "has no effect beside 'datasets', which TRL reads alone; remove one of them",
        when=lambda value, values: bool(value and values.get("datasets")),
    ),
    Rejection(
        ("test_split_size",),
        "has no effect without evaluation; add eval_strategy: epoch",
        when=lambda value, values: bool(value) and values.get("eval_strategy", "no") == "no",
    ),
    Rejection(
        ("label_smoothing_factor",),
        "has no effect on this loss; remove the key, or in dpo set label_smoothing",
        _PREFERENCES | _ONLINE,
    ),
    Rejection(
        ("eval_packing",),
        "needs packing: true; without it, validation samples that are packed into one sequence attend to each other. "
        "Remove the key",
        frozenset({"sft"}),
        when=lambda value, values: value is True and not values.get("packing"),
    ),
    Rejection(("padding_free",), "is disabled in TRL's DPOTrainer; remove the key", frozenset({"dpo"})),
    Rejection(
        ("remove_unused_columns",),
        "would drop the columns that rewards read; remove the key",
        _ONLINE,
        when=lambda value, values: value is True and bool(values.get("reward_funcs")),
    ),
    Rejection(
        ("max_completion_length", "is_encoder_decoder"),
        "is only for encoder-decoder models; remove the key, max_length counts prompt and completion",
        frozenset({"orpo"}),
    ),
    Rejection(
        ("max_length",),
        "must be a number in orpo, where TRL takes null for 512; give the tokens of prompt and completion",
        frozenset({"orpo"}),
        when=lambda value, values: value is None,
    ),
    Rejection(
        ("max_completion_length",),
        "must be a number; give the tokens of a completion",
        _ONLINE,
        when=lambda value, values: value is None,
    ),
)

_WITH_WARMUP = (
    *("constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt"),
    *("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay"),
)
# Keys, or the beginnings of their names, that have no effect unless one of the other keys has one of the values.
WITHOUT: tuple[tuple[tuple[str, ...], dict[str, tuple[Any, ...]]], ...] = (
    (("lora_", "use_rslora", "use_dora"), {"use_peft": (True,)}),
    (("bnb_4bit_", "use_bnb_"), {"load_in_4bit": (True,)}),
    (("packing_strategy",), {"packing": (True,)}),
    (("ref_model_",), {"sync_ref_model": (True,)}),
    (("vllm_",), {"use_vllm": (True,)}),
    (("entropy_coef_", "entropy_target"), {"use_adaptive_entropy": (True,)}),
    (("num_completions_to_print", "log_unique_prompts"), {"log_completions": (True,)}),
    (("logging_steps",), {"logging_strategy": ("steps",)}),
    (("save_steps",), {"save_strategy": ("steps",)}),
    (("eval_steps",), {"eval_strategy": ("steps",)}),
    (("eval_delay", "eval_on_start", "do_eval", "eval_packing"), {"eval_strategy": ("steps", "epoch")}),
    (
        ("metric_for_best_model", "greater_is_better"),
        {
            "load_best_model_at_end": (True,),
            "save_strategy": ("best",),
            "lr_scheduler_type": ("reduce_lr_on_plateau", "greedy"),
        },
    ),
    (("warmup_steps",), {"lr_scheduler_type": _WITH_WARMUP}),
    (("length_column_name",), {"train_sampling_strategy": ("group_by_length", "batch_rebalance")}),
    (("f_alpha_divergence_coef",), {"f_divergence_type": ("alpha_divergence",)}),
)


def bounds_of(stage: str, key: str) -> dict[str, float]:
    """The bounds of a number, as of `training.stages.recipe.option`; empty without any."""
    return _BOUNDS_OF.get(stage, {}).get(key) or BOUNDS.get(key, {})


def is_rejected(stage: str, key: str) -> bool:
    """Whether a key is rejected whatever its value and the other keys are, so that help leaves it out."""
    return any(stage in rule.stages and key in rule.keys and rule.when is None for rule in REJECTED)


def check_rules(stage: str, values: dict[str, Any], defaults: dict[str, Any], where: str) -> None:
    """Reject keys that TRL would ignore or misread, numbers beyond bounds, and names that are not among the choices.

    Args:
        values: as TRL annotates them. Bounds and choices do not concern a default.
        defaults: of all keys.
        where: what to call the recipe in an error.

    Raises:
        UserError: names the key, and what to do instead.
    """
    for rule in REJECTED:
        for key in rule.keys:
            if stage not in rule.stages or key not in values:
                continue
            value = values[key]
            if rule.when(value, values) if rule.when else value != defaults.get(key):
                raise UserError(f"{where}: '{key}' {rule.reason}")
    for key, value in values.items():
        if value == defaults.get(key) or isinstance(value, bool):
            continue
        if isinstance(value, (int, float)):
            check_bounds(value, bounds_of(stage, key), where, key)
        elif isinstance(value, str) and key in CHOICES and value not in CHOICES[key]:
            raise UserError(f"{where}: '{key}': no '{value}'; {nearest(value, CHOICES[key])}")


def check_packages(values: dict[str, Any], where: str) -> None:
    """Reject values that need a package which is not installed.

    Args:
        where: what to call the recipe in an error.

    Raises:
        UserError: names the key, the package, and how to install it.
    """
    needed = [(key, packages[values[key]]) for key, packages in PACKAGES.items() if values.get(key) in packages]
    if values.get("deepspeed"):
        needed.append(("deepspeed", "deepspeed"))
    for key, package in needed:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{where}: '{key}': {package} is not installed; {how_to_install(package)}")


def without_effect(values: dict[str, Any], defaults: dict[str, Any]) -> Iterator[str]:
    """A sentence for each key of a recipe that has no effect, because another key is not set.

    Args:
        defaults: of all keys.
    """
    complete = defaults | values
    for keys, others in WITHOUT:
        if any(complete.get(other) in allowed for other, allowed in others.items()):
            continue
        other, allowed = next(iter(others.items()))
        for key, value in values.items():
            if key.startswith(keys) and value != defaults.get(key):
                yield f"'{key}' has no effect without {other}: {str(allowed[0]).lower()}"
