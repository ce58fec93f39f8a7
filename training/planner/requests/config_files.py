"""Architectures from a config.json: our own, Llama, Mistral, Qwen, GPT-2, GPT-NeoX, Gemma, Phi-3 and SmolLM3."""

import json
from pathlib import Path
from typing import Any

from training.common.errors import UserError, nearest, one_line
from training.planner.architecture import PRESETS, Architecture

# By model_type: what the type says about sizes beside the keys of the file.
FAMILIES: dict[str, dict[str, Any]] = {
    "scratch": {},
    "llama": PRESETS["llama"],
    "mistral": PRESETS["llama"],
    "ministral": PRESETS["llama"],
    "smollm3": PRESETS["llama"] | {"tie_word_embeddings": True},
    "qwen2": PRESETS["llama"] | {"attention_bias": True},
    "qwen3": PRESETS["qwen3"],
    "phi3": PRESETS["llama"],
    "gemma": {"mlp_type": "geglu", "tie_word_embeddings": True, "head_dim": 256},
    "gemma2": {"mlp_type": "geglu", "tie_word_embeddings": True, "head_dim": 256, "norms_per_layer": 4},
    "gemma3_text": {
        "mlp_type": "geglu",
        "tie_word_embeddings": True,
        "head_dim": 256,
        "norms_per_layer": 4,
        "qk_norm": True,
    },
    "gpt2": PRESETS["gpt2"],
    "gpt_neox": {
        "norm_type": "layer",
        "mlp_type": "gelu",
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    },
}
_RENAMED = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
}
_WITHOUT_OUTPUT_BIAS = ("qwen2",)


def read_config(path: Path) -> Architecture:
    """The architecture of a config.json, or of the folder that holds one.

    Raises:
        UserError: no such file, no JSON, an unknown kind of model, or sizes that are missing or wrong.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; name a recipe folder, a config.json, or a size such as 1B") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a readable config.json ({one_line(error):.80}); repair it") from None
    if not isinstance(config, dict):
        raise UserError(f"{file}: holds no mapping; name a model's config.json")
    if isinstance(config.get("text_config"), dict):  # the language model of a multimodal one
        config = config["text_config"]
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(
            f"{file}: 'model_type': {kind!r:.60} is not planned for ({nearest(str(kind), FAMILIES)}); describe its "
            "sizes with --preset and --model"
        )
    given = {_RENAMED.get(key, key): value for key, value in config.items()}
    if kind == "gpt2":
        given.setdefault("intermediate_size", None)
    elif "hidden_size" in given and kind != "scratch" and "intermediate_size" not in given:
        raise UserError(f"{file}: 'intermediate_size' is missing; add it")
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if given.get(key) is None:
            raise UserError(f"{file}: '{key}' is missing; add it")
    if kind in ("qwen2", "qwen3") and not given.get("use_sliding_window"):
        given.pop("sliding_window", None)
    options = FAMILIES[kind] | {key: value for key, value in given.items() if value is not None}
    if kind in ("gemma2", "gemma3_text") and "layer_types" not in given:
        options["layer_types"] = _alternating(options, every=2 if kind == "gemma2" else 6)
    if kind in _WITHOUT_OUTPUT_BIAS:
        options["output_bias"] = False
    name = path.resolve().name if path.is_dir() else path.resolve().parent.name
    try:
        return Architecture.from_options(options, name)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _alternating(options: dict[str, Any], every: int) -> list[str]:
    """Layer types with full attention in every so many layers, as Gemma's configurations imply."""
    pattern = options.get("sliding_window_pattern", every)
    layers = range(options["num_hidden_layers"])
    return ["full_attention" if (index + 1) % pattern == 0 else "sliding_attention" for index in layers]
