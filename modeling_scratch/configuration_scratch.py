"""Configuration of the model: the options of the architecture, and the presets that set them."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.type_validators import interval

# A preset sets the kind of network, never its size. `gpt2`, `llama` and `qwen3` are exactly those architectures, so
# weights convert in both directions with equal logits. `scratch` is our own: fast, with no counterpart elsewhere.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "norm_type": "layer",
        "norm_eps": 1e-5,
        "position_type": "learned",
        "mlp_type": "gelu",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama": {"norm_type": "rms", "norm_eps": 1e-5, "position_type": "rope", "mlp_type": "swiglu"},
    "qwen3": {"norm_type": "rms", "norm_eps": 1e-6, "position_type": "rope", "mlp_type": "swiglu", "qk_norm": True},
    "scratch": {
        "norm_type": "rms",
        "norm_eps": 1e-6,
        "position_type": "rope",
        "mlp_type": "relu2",
        "qk_norm": True,
        "final_logit_softcapping": 15.0,
    },
}

# By rope_type: the required and the optional keys of rope_parameters, beside rope_type and rope_theta.
_ROPE_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "dynamic": ({"factor"}, set()),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    ),
    "longrope": ({"short_factor", "long_factor", "original_max_position_embeddings"}, {"factor", "attention_factor"}),
    "llama3": ({"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}, set()),
}
_SMALLEST = {  # of the sizes
    "vocab_size": 1,
    "hidden_size": 1,
    "intermediate_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 1,
    "max_position_embeddings": 1,
    "sliding_window": 2,  # transformers caches one position less, and with 0 it caches all
}


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest known name, or all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"


def is_number(value: Any, least: float = 0.0) -> bool:
    """Whether a value is a finite number above 0, and at least `least`."""
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return numeric and least <= value and 0 < value < math.inf


@strict
class ScratchConfig(PreTrainedConfig):
    r"""Configuration of a decoder-only transformer.

    The defaults are a small model of the `llama` kind. [`ScratchConfig.from_preset`] sets all options of an
    architecture.

    Args:
        vocab_size: number of rows of the embedding. It may exceed the tokenizer's, for faster matrix products.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the MLP. Default: 8/3 of `hidden_size` for `swiglu`, else 4 times, rounded up to
            a multiple of 64, so that all kinds have about as many parameters.
        num_hidden_layers: number of decoder layers.
        num_attention_heads: number of query heads.
        num_key_value_heads: number of key and value heads. Equal to `num_attention_heads` (the default) it is
            multi-head attention, 1 is multi-query, between them grouped-query ([GQA](https://arxiv.org/abs/2305.13245)).
        head_dim: width of one head. Default: `hidden_size // num_attention_heads`.
        max_position_embeddings: longest sequence, in tokens.
        norm_type: `rms` ([RMSNorm](https://arxiv.org/abs/1910.07467)) or `layer` (LayerNorm with a bias).
        norm_eps: added to the variance.
        position_type: `rope` ([RoPE](https://arxiv.org/abs/2104.09864)), `learned`, `sinusoidal` or `none`.
        rope_parameters: transformers' mapping of `rope_type`, `rope_theta` and the keys of the type. Only for `rope`.
        mlp_type: `swiglu` ([GLU variants](https://arxiv.org/abs/2002.05202)), `gelu` (tanh approximation, transformers'
            `gelu_new`), `gelu_exact` (by the error function, transformers' `gelu`) or `relu2`
            ([squared ReLU](https://arxiv.org/abs/2109.08668)).
        qk_norm: normalise each query and key head before the rotation.
        attention_bias, mlp_bias: whether the projections of attention and MLP have biases.
        tie_word_embeddings: whether the output matrix is the embedding.
        final_logit_softcapping: cap logits smoothly at plus and minus this value, `cap * tanh(logits / cap)`.
        sliding_window: number of positions that a `sliding_attention` layer sees, itself included; at least 2.
        layer_types: `full_attention` or `sliding_attention` for each layer. Default: all sliding when `sliding_window`
            is given, else all full.
        embedding_shortcut: each layer reads a learned mixture of the residual stream and the token embedding.
        attention_dropout, hidden_dropout: probability of dropping attention weights, and outputs of the embedding,
            attention and MLP, in training.
        initializer_range: standard deviation of the initial weights. The projections into the residual stream start
            smaller by `1 / sqrt(2 * num_hidden_layers)`.
        zero_init_projections: start these projections, and an untied output matrix, at zero instead: every layer
            begins as the identity, and the first loss is `ln(vocab_size)`.

    Raises:
        StrictDataclassError: sizes that do not divide, an unknown kind, a wrong type, or options that contradict each
            other. Its `__cause__` is the check's own ValueError or TypeError, in one line.
    """

    model_type = "scratch"
    keys_to_ignore_at_inference = ["past_key_values"]
    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    base_model_pp_plan = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }

    vocab_size: int = 8192
    hidden_size: int = 256
    intermediate_size: int | None = None
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 1024
    norm_type: str = "rms"
    norm_eps: int | float = 1e-5
    position_type: str = "rope"
    rope_parameters: dict | None = None
    mlp_type: str = "swiglu"
    qk_norm: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    final_logit_softcapping: int | float | None = None
    sliding_window: int | None = None
    layer_types: list[str] | None = None
    embedding_shortcut: bool = False
    attention_dropout: int | float = interval(min=0.0, max=1.0)(default=0.0)
    hidden_dropout: int | float = interval(min=0.0, max=1.0)(default=0.0)
    initializer_range: int | float = interval(min=0.0, max=1.0)(default=0.02)
    zero_init_projections: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @classmethod
    def from_preset(cls, preset: str, **options: Any) -> "ScratchConfig":
        """The configuration of a preset, with sizes and any other option set on top.

        Args:
            preset: a key of `PRESETS`.
            options: arguments of the class; `rope_theta` is short for `rope_parameters={"rope_theta": ...}`.

        Raises:
            ValueError: unknown preset or option.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset '{preset}'; {nearest(preset, PRESETS)}")
        known = set(cls.__annotations__) | {"rope_theta"}
        for name in options:
            if name not in known:
                raise ValueError(f"unknown model option '{name}'; {nearest(name, known)}")
        return cls(**(PRESETS[preset] | options))

    def __post_init__(self, **kwargs):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads > 0 and self.hidden_size % self.num_attention_heads == 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.intermediate_size is None:
            width = self.hidden_size * 8 / 3 if self.mlp_type == "swiglu" else self.hidden_size * 4
            self.intermediate_size = -int(-width // 64) * 64
        if self.layer_types is None:
            kind = "full_attention" if self.sliding_window is None else "sliding_attention"
            self.layer_types = [kind] * self.num_hidden_layers
        # A tensor-parallel plan may name only modules that the network has.
        absent = () if self.qk_norm else ("q_norm", "k_norm")
        absent += () if self.mlp_type == "swiglu" else ("gate_proj",)
        plan = type(self).base_model_tp_plan
        self.base_model_tp_plan = {name: kind for name, kind in plan.items() if not name.endswith(absent)}
        rotates = self.position_type == "rope"
        rotation = {"rope_parameters": self.rope_parameters, **kwargs}
        for name in ("rope_parameters", "rope_theta", "rope_scaling"):  # the last as in version 4
            if not rotates and rotation.get(name) is not None:
                raise ValueError(f"{name} is given, but position_type is '{self.position_type}', not rope")
        super().__post_init__(**kwargs)
        if rotates:
            self.rope_parameters.pop("type", None)  # the older name of rope_type, which the base class has read
        else:
            self.rope_parameters = None  # the base class fills them in for every configuration

    def validate_architecture(self):
        """Check sizes, kinds and token ids; strict validation runs it whenever a configuration is created or saved."""
        for name, kinds in {
            "norm_type": ("rms", "layer"),
            "position_type": ("rope", "learned", "sinusoidal", "none"),
            "mlp_type": ("swiglu", "gelu", "gelu_exact", "relu2"),
        }.items():
            if getattr(self, name) not in kinds:
                raise ValueError(f"{name} must be one of {', '.join(kinds)}, not '{getattr(self, name)}'")
        if self.head_dim is None and self.num_attention_heads > 0:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}), or head_dim must be given"
            )
        for name, smallest in _SMALLEST.items():
            if getattr(self, name) is not None and getattr(self, name) < smallest:
                raise ValueError(f"{name} must be at least {smallest}, not {getattr(self, name)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})"
            )
        for name in ("norm_eps", "final_logit_softcapping"):
            if getattr(self, name) is not None and not is_number(getattr(self, name)):
                raise ValueError(f"{name} must be a number above 0, not {getattr(self, name)}")
        unknown = set(self.layer_types) - {"full_attention", "sliding_attention"}
        if unknown:
            raise ValueError(f"layer_types must each be full_attention or sliding_attention, not '{min(unknown)}'")
        if "sliding_attention" in self.layer_types and self.sliding_window is None:
            raise ValueError("layer_types has sliding_attention, but sliding_window is not set")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            ids = getattr(self, name)
            for token in ids if isinstance(ids, list) else [ids]:
                if token is not None and not 0 <= token < self.vocab_size:
                    raise ValueError(f"{name} must be from 0 to {self.vocab_size - 1} (vocab_size - 1), not {token}")

    def validate_rope(self):
        """Check rope_parameters, in the same validation.

        transformers' own check accepts misspelt keys, rotation of a part of each head, and any number.
        """
        if self.position_type != "rope":
            return
        given = self.rope_parameters
        kind, theta, part = given.get("rope_type"), given.get("rope_theta"), given.get("partial_rotary_factor", 1)
        if kind not in _ROPE_KEYS:
            raise ValueError(f"rope_type must be one of {', '.join(_ROPE_KEYS)}, not '{kind}'")
        if not is_number(theta):
            raise ValueError(f"rope_theta must be a number above 0, not {theta!r}")
        if part != 1:
            raise ValueError(f"partial_rotary_factor must be 1, not {part}: whole heads are rotated")
        needed, optional = _ROPE_KEYS[kind]
        unknown = set(given) - {"rope_type", "rope_theta", "partial_rotary_factor"} - needed - optional
        if unknown:
            known = ", ".join(["rope_theta", *sorted(needed | optional)])
            raise ValueError(f"rope_parameters of type '{kind}' take {known}, not '{min(unknown)}'")
        missing = needed - set(given)
        if missing:
            raise ValueError(f"rope_parameters of type '{kind}' lack '{min(missing)}'")
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: RoPE rotates pairs of coordinates")
        for name in sorted(needed):
            value, pairs = given[name], self.head_dim // 2
            if name in ("short_factor", "long_factor"):
                if not isinstance(value, list) or len(value) != pairs or not all(map(is_number, value)):
                    raise ValueError(f"{name} must be {pairs} numbers above 0, one per pair of coordinates")
            elif not is_number(value, least=1 if name == "factor" else 0):
                raise ValueError(
                    f"{name} must be a number {'of at least 1' if name == 'factor' else 'above 0'}, not {value!r}"
                )
        if kind == "llama3" and given["low_freq_factor"] >= given["high_freq_factor"]:
            raise ValueError(
                f"high_freq_factor ({given['high_freq_factor']}) must be above low_freq_factor "
                f"({given['low_freq_factor']})"
            )
        super().validate_rope()
