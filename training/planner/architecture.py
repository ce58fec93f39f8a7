"""Architectures to plan for: the sizes of a decoder, from a preset, a config.json or a number of parameters.

Nothing here imports torch or transformers, so that `scratch plan` answers at once.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from training.common.errors import UserError, nearest
from training.stages.recipe import build

# What a preset of `modeling_scratch.PRESETS` says about sizes. A test holds the two together: that module imports
# transformers, which takes seconds.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "norm_type": "layer",
        "position_type": "learned",
        "mlp_type": "gelu",
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama": {"mlp_type": "swiglu"},
    "qwen3": {"mlp_type": "swiglu", "qk_norm": True},
    "scratch": {"mlp_type": "relu2", "qk_norm": True, "final_logit_softcapping": 15.0},
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes of a decoder-only transformer, by the names of `ScratchConfig`.

    Attributes:
        name: for tables.
        attention_bias, output_bias: of the query, key and value projections, and of the output projection.
        mlp_type: `swiglu` and `geglu` have a gate, so three matrices; the others two.
        norms_per_layer: 2, or 4 with norms before and after attention and MLP (Gemma 2 and 3).
        layer_types: `full_attention` or `sliding_attention` for each layer; empty: all full.

    Raises:
        UserError: a size is not a whole number above 0, or heads do not divide.
    """

    name: str = "model"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    norm_type: Literal["rms", "layer"] = "rms"
    position_type: Literal["rope", "learned", "sinusoidal", "none"] = "rope"
    mlp_type: Literal["swiglu", "geglu", "gelu", "relu2"] = "swiglu"
    qk_norm: bool = False
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    final_logit_softcapping: float | None = None
    sliding_window: int | None = None
    layer_types: tuple[str, ...] = ()
    embedding_shortcut: bool = False
    norms_per_layer: int = 2

    def __post_init__(self):
        for name in _SIZES:
            _check_size(name, getattr(self, name))
        if self.sliding_window is not None:
            _check_size("sliding_window", self.sliding_window)
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"'num_attention_heads': {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}); change one of them"
            )
        if self.layer_types and (len(self.layer_types) != self.num_hidden_layers or set(self.layer_types) - _KINDS):
            raise UserError(
                f"'layer_types': takes {' or '.join(sorted(_KINDS))} for each of {self.num_hidden_layers} layers; "
                "correct it or leave it out"
            )

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate matrix."""
        return self.mlp_type in ("swiglu", "geglu")

    @property
    def query_width(self) -> int:
        """heads * head_dim."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        """Key and value heads * head_dim."""
        return self.num_key_value_heads * self.head_dim

    @property
    def windows(self) -> list[int | None]:
        """The positions that each layer attends to; None for all."""
        kinds = self.layer_types or ["full_attention"] * self.num_hidden_layers
        return [self.sliding_window if kind == "sliding_attention" else None for kind in kinds]

    @property
    def parameters(self) -> dict[str, int]:
        """Number of parameters by component, exact. A tied output matrix has none of its own."""
        h, layers = self.hidden_size, self.num_hidden_layers
        norm = 2 if self.norm_type == "layer" else 1  # a LayerNorm has a bias
        norms = layers * (self.norms_per_layer * norm * h + 2 * self.head_dim * self.qk_norm) + norm * h
        return {
            "token embedding": self.vocab_size * h,
            "position embedding": self.max_position_embeddings * h * (self.position_type == "learned"),
            "attention": layers * (self.attention_matrices + self._attention_biases),
            "mlp": layers * (self.mlp_matrices + self._mlp_biases),
            "norms": norms,
            "shortcut": 2 * layers * self.embedding_shortcut,
            "output matrix": self.vocab_size * h * (not self.tie_word_embeddings),
        }

    @property
    def num_parameters(self) -> int:
        """All parameters, tied ones once."""
        return sum(self.parameters.values())

    @property
    def attention_matrices(self) -> int:
        """Weights of the four projections of a layer's attention, without biases."""
        return 2 * self.hidden_size * (self.query_width + self.key_value_width)

    @property
    def mlp_matrices(self) -> int:
        """Weights of the matrices of a layer's MLP, without biases."""
        return (3 if self.gated else 2) * self.hidden_size * self.intermediate_size

    @property
    def layer_matrices(self) -> int:
        """Weights of the matrices of all layers, without biases."""
        return self.num_hidden_layers * (self.attention_matrices + self.mlp_matrices)

    @property
    def head_matrix(self) -> int:
        """Weights of the output matrix, tied or not."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """All parameters of one layer."""
        norm = 2 if self.norm_type == "layer" else 1
        norms = self.norms_per_layer * norm * self.hidden_size + 2 * self.head_dim * self.qk_norm
        biases = self._attention_biases + self._mlp_biases
        return self.attention_matrices + self.mlp_matrices + biases + norms

    @property
    def _attention_biases(self) -> int:
        into = self.attention_bias * (self.query_width + 2 * self.key_value_width)
        return into + self.output_bias * self.hidden_size

    @property
    def _mlp_biases(self) -> int:
        return self.mlp_bias * (self.intermediate_size * (1 + self.gated) + self.hidden_size)

    @classmethod
    def from_preset(cls, preset: str, name: str = "", **options: Any) -> "Architecture":
        """The architecture of a preset of ours with sizes and other `ScratchConfig` options set on top.

        Sizes that are left out get ScratchConfig's defaults; `vocab_size` too.

        Raises:
            UserError: an unknown preset, or sizes that do not fit together.
        """
        if preset not in PRESETS:
            raise UserError(f"'preset': unknown preset '{preset}'; {nearest(preset, PRESETS)}")
        return cls.from_options(PRESETS[preset] | options, name or preset)

    @classmethod
    def from_config(cls, config: Any, name: str = "model") -> "Architecture":
        """The architecture of a `ScratchConfig` object."""
        return cls.from_options({key: getattr(config, key, None) for key in (*OPTIONS, "mlp_type")}, name)

    @classmethod
    def from_options(cls, options: dict[str, Any], name: str) -> "Architecture":
        """The architecture of `ScratchConfig` options; those that do not concern sizes are ignored.

        Raises:
            UserError: sizes that do not fit together.
        """
        given = {key: value for key, value in options.items() if value is not None and key in OPTIONS}
        sizes = _DEFAULTS | {key: given[key] for key in given if key in _DEFAULTS}
        heads = given.get("num_attention_heads", sizes["num_attention_heads"])
        hidden = given.get("hidden_size", sizes["hidden_size"])
        layers, types = given.get("num_hidden_layers", sizes["num_hidden_layers"]), given.get("layer_types") or ()
        named = {"num_attention_heads": heads, "hidden_size": hidden, "num_hidden_layers": layers}
        for key, value in named.items():
            _check_size(key, value)
        if not isinstance(types, (list, tuple)):
            raise UserError(f"'layer_types': takes a list, not {types!r}; correct it or leave it out")
        if "head_dim" not in given and hidden % heads:
            raise UserError(
                f"'hidden_size': {hidden} is not a multiple of num_attention_heads ({heads}); change one, or give "
                "head_dim"
            )
        mlp = given.get("mlp_type", "swiglu")
        inner = hidden * 8 / 3 if mlp in ("swiglu", "geglu") else hidden * 4
        derived = {
            "num_key_value_heads": heads,
            "head_dim": hidden // heads,
            "intermediate_size": -int(-inner // 64) * 64,
            "output_bias": given.get("attention_bias", False),
        }
        values = sizes | derived | given
        if not types and values.get("sliding_window"):
            types = ["sliding_attention"] * layers
        if set(map(str, types)) <= {"full_attention"}:
            types = ()
        return build(cls, values | {"layer_types": tuple(types), "name": name}, name)


def _check_size(name: str, value: Any) -> None:
    most = MOST_LAYERS if name == "num_hidden_layers" else MOST
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UserError(f"'{name}': must be a whole number from 1 to {most:,}, not {value!r:.60}; correct it")


MOST, MOST_LAYERS = 2**40, 100_000  # of sizes: beyond all reason, so that no typing error takes hours
_KINDS = {"full_attention", "sliding_attention"}
_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings"),
)
OPTIONS = frozenset(field.name for field in fields(Architecture)) - {"name"}
_DEFAULTS = {  # of ScratchConfig
    "vocab_size": 8192,
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}

