"""litgpt's `lit_model.pth`: a Llama or Qwen3, its options in the `model_config.yaml` beside it."""

from typing import Any

import torch

from training.foreign.checkpoint import Checkpoint
from training.foreign.sizes import Sizes, check_settings, mapping, number, whole_number
from training.foreign.stock import StockModel, head_dim, llama_config, with_output
from training.stages.yaml_values import read_yaml

NAME, FILE = "litgpt", "lit_model.pth"
SETTINGS = "model_config.yaml"
KEYS = frozenset(
    {
        "transformer.wte.weight",
        "transformer.ln_f.weight",
        *(f"transformer.h.N.{name}.weight" for name in ("attn.qkv", "attn.proj", "norm_1", "norm_2", "mlp.proj")),
    }
)
# The only values of its options that make a Llama or a Qwen3.
_ONLY = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "parallel_residual": False,
    "shared_attention_norm": False,
    "rotary_percentage": 1.0,
    "rope_interleave": False,
    "rope_local_base_freq": None,
    "norm_qk_type": "default",
    "norm_1": True,
    "norm_2": True,
    "post_attention_norm": False,
    "post_mlp_norm": False,
    "attention_scores_scalar": None,
    "attention_logit_softcapping": None,
    "final_logit_softcapping": None,
    "sliding_window_size": None,
    "scale_embeddings": False,
    "lm_head_bias": False,
    "n_expert": 0,
    "latent_attention": None,
}
_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_seq_len": "original_max_position_embeddings",
}


def matches(checkpoint: Checkpoint) -> bool:
    """Whether it has the tensors; those of queries, keys and values have an older name too."""
    names = {name.replace(".attn.attn.", ".attn.qkv.") for name in checkpoint.names()}
    return names >= KEYS


def read(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    """The model as Llama, or as Qwen3 if it normalises queries and keys.

    Raises:
        UserError: no `model_config.yaml`, or an option that neither has, with its value.
    """
    settings = _settings(checkpoint)
    vocab, hidden = checkpoint.shape("transformer.wte.weight")
    layers = checkpoint.layers("transformer.h.")
    check_settings(checkpoint, settings, {"padded_vocab_size": vocab, "n_embd": hidden, "n_layer": layers})
    heads = sizes.agree(checkpoint, "heads", whole_number(checkpoint, settings, "n_head"), 32)
    context = sizes.agree(checkpoint, "context", whole_number(checkpoint, settings, "block_size"), 2048)
    width = whole_number(checkpoint, settings, "head_size") or head_dim(checkpoint, hidden, heads)
    groups = whole_number(checkpoint, settings, "n_query_groups") or heads
    if heads % groups:
        raise checkpoint.error(f"n_head is {heads}, not a multiple of n_query_groups, {groups}; correct {SETTINGS}")
    qk_norm = bool(settings.get("norm_qk"))
    rope = sizes.agree(checkpoint, "rope_parameters", _rotation(checkpoint, settings), "")
    inner = checkpoint.shape("transformer.h.0.mlp.proj.weight")[1]
    biases = {
        "attention": _qkv(checkpoint, 0, "bias") in checkpoint.tensors,
        "mlp": "transformer.h.0.mlp.proj.bias" in checkpoint.tensors,
    }
    if qk_norm and biases["mlp"]:
        raise checkpoint.error("bias is True in the MLP, which a Qwen3 does not have; it cannot be imported")
    weights = {
        "model.embed_tokens.weight": checkpoint.take("transformer.wte.weight", vocab, hidden),
        "model.norm.weight": checkpoint.take("transformer.ln_f.weight", hidden),
    }
    norms = {"input_layernorm": ("norm_1", hidden), "post_attention_layernorm": ("norm_2", hidden)}
    if qk_norm:
        norms |= {"self_attn.q_norm": ("attn.norm_q", width), "self_attn.k_norm": ("attn.norm_k", width)}
    linear = {
        "self_attn.o_proj": ("attn.proj", hidden, heads * width),
        "mlp.gate_proj": ("mlp.fc_1", inner, hidden),
        "mlp.up_proj": ("mlp.fc_2", inner, hidden),
        "mlp.down_proj": ("mlp.proj", hidden, inner),
    }
    for layer in range(layers):
        ours, theirs = f"model.layers.{layer}", f"transformer.h.{layer}"
        for name, (place, size) in norms.items():
            weights[f"{ours}.{name}.weight"] = checkpoint.take(f"{theirs}.{place}.weight", size)
        for name, (place, *shape) in linear.items():
            weight = weights[f"{ours}.{name}.weight"] = checkpoint.take(f"{theirs}.{place}.weight", *shape)
            if biases["mlp" if name.startswith("mlp") else "attention"]:
                # Its option attn_bias gives the output of the attention none: zeros are the same network.
                bias, zeros = f"{theirs}.{place}.bias", torch.zeros(shape[0], dtype=weight.dtype)
                found = bias in checkpoint.tensors
                weights[f"{ours}.{name}.bias"] = checkpoint.take(bias, shape[0]) if found else zeros
        for kind, shape in {"weight": (hidden,), "bias": ()}.items():
            if kind == "weight" or biases["attention"]:
                name = _qkv(checkpoint, layer, kind)
                joined = checkpoint.take(name, (heads + 2 * groups) * width, *shape)
                parts = _split(joined, heads, groups, width, interleaved=".attn.attn." in name)
                for letter, part in zip("qkv", parts):
                    weights[f"{ours}.self_attn.{letter}_proj.{kind}"] = part
    options: dict[str, Any] = {} if qk_norm else {"mlp_bias": biases["mlp"]}
    config = llama_config(
        qk_norm,
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=width,
        max_position_embeddings=context,
        rms_norm_eps=number(checkpoint, settings, "norm_eps", 1e-5),
        rope_parameters=dict(rope),
        attention_bias=biases["attention"],
        **options,
    )
    beside = checkpoint.file.parent if (checkpoint.file.parent / "tokenizer.json").is_file() else None
    return with_output(StockModel(NAME, config, weights, tokenizer=beside), checkpoint, "lm_head.weight")


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The options of the model, all of which a Llama or Qwen3 has."""
    file = checkpoint.file.with_name(SETTINGS)
    if not file.is_file():
        raise checkpoint.error(f"there is no {SETTINGS} beside it, which holds its options; copy it there")
    settings = read_yaml(file)
    for key, value in _ONLY.items():
        if settings.get(key, value) != value:
            raise checkpoint.error(
                f"{key} is {settings[key]!r:.80}, but a Llama or Qwen3 has {value!r}; it cannot be imported"
            )
    return settings


def _rotation(checkpoint: Checkpoint, settings: dict[str, Any]) -> dict[str, Any]:
    """transformers' `rope_parameters` of its rotation."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": number(checkpoint, settings, "rope_base", 10_000.0)}
    ratio = number(checkpoint, settings, "rope_condense_ratio", 1.0)
    adjustments = {} if settings.get("rope_adjustments") is None else mapping(checkpoint, settings, "rope_adjustments")
    if ratio != 1:
        rope |= {"rope_type": "linear", "factor": ratio}
    if adjustments:
        if set(adjustments) != set(_LLAMA3) or ratio != 1:
            raise checkpoint.error(
                f"rope_adjustments has {', '.join(map(str, adjustments))}; only Llama 3's {', '.join(_LLAMA3)} can be "
                "imported"
            )
        rope |= {"rope_type": "llama3"} | {ours: adjustments[theirs] for theirs, ours in _LLAMA3.items()}
    return rope


def _qkv(checkpoint: Checkpoint, layer: int, kind: str) -> str:
    """The name of the joined queries, keys and values, in new and old files."""
    old = f"transformer.h.{layer}.attn.attn.{kind}"
    return old if old in checkpoint.tensors else f"transformer.h.{layer}.attn.qkv.{kind}"


def _split(
    joined: torch.Tensor, heads: int, groups: int, width: int, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values: all of each together or, in old files, those of one group together."""
    if not interleaved:
        queries, keys, values = joined.split((heads * width, groups * width, groups * width))
        return queries, keys, values
    each = joined.view(groups, heads // groups + 2, width, *joined.shape[1:])
    parts = (each[:, :-2], each[:, -2], each[:, -1])
    queries, keys, values = (part.reshape(-1, *joined.shape[1:]) for part in parts)
    return queries, keys, values
