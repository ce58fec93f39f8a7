"""Network of a GGUF file, for `scratch import`: a Llama, Qwen3 or GPT-2 in the layout of transformers.

The reverse of `gguf_file`. An option of the file that those classes lack is rejected.
"""

import math
from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from training.engines.gguf_file import as_matrix
from training.engines.gguf_names import ARCHITECTURES, stock_name
from training.engines.gguf_reader import precision_of
from training.foreign.checkpoint import Checkpoint
from training.foreign.sizes import check_settings, number, whole_number
from training.foreign.stock import StockModel, gpt2_config, head_dim, llama_config, to_halves, with_output

_DIVISORS = "rope_freqs.weight"  # of the angles of Llama 3's rotation
_LOW, _HIGH = 1.0, 4.0  # its low_freq_factor and high_freq_factor in all models of Meta


def read_network(checkpoint: Checkpoint) -> StockModel:
    """The model; the checkpoint has no tensors left.

    Raises:
        UserError: another architecture, sizes that contradict the tensors, or an option that a stock class lacks.
    """
    kind = checkpoint.beside.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise checkpoint.error(f"it is of the architecture {kind!r:.80}; scratch imports {', '.join(ARCHITECTURES)}")
    settings = {
        key.removeprefix(f"{kind}."): value for key, value in checkpoint.beside.items() if key.startswith(f"{kind}.")
    }
    vocab, hidden = checkpoint.shape("token_embd.weight")
    inner = checkpoint.shape("blk.0.ffn_up.weight")[0]
    found = {"vocab_size": vocab, "embedding_length": hidden, "feed_forward_length": inner}
    check_settings(checkpoint, settings, found | {"block_count": checkpoint.layers("blk.")})
    model = (_gpt2 if kind == "gpt2" else _llama)(checkpoint, settings, kind, (vocab, hidden, inner))
    for name in [name for name in checkpoint.tensors if name != "output.weight"]:
        stock = stock_name(name, kind)
        model.weights[stock] = as_matrix(stock, checkpoint.tensors.pop(name))
    return with_output(model, checkpoint, "output.weight")


def _size(checkpoint: Checkpoint, settings: dict[str, Any], key: str, default: int | None = None) -> int:
    value = whole_number(checkpoint, settings, key)
    if value is None and default is None:
        raise checkpoint.error(f"it does not say {key}; give a file that a converter of llama.cpp or scratch wrote")
    return default if value is None else value


def _title(checkpoint: Checkpoint, kind: str) -> str:
    return f"{kind} of a GGUF file {precision_of(checkpoint)}".rstrip()


def _gpt2(checkpoint: Checkpoint, settings: dict[str, Any], kind: str, sizes: tuple[int, int, int]) -> StockModel:
    vocab, hidden, inner = sizes
    context = checkpoint.shape("position_embd.weight")[0]
    check_settings(checkpoint, settings, {"context_length": context})
    heads = _size(checkpoint, settings, "attention.head_count")
    head_dim(checkpoint, hidden, heads)
    layers = checkpoint.layers("blk.")
    config = gpt2_config(vocab, context, hidden, inner, layers, heads, "gelu_new", dropout=0.0)
    config.layer_norm_epsilon = number(checkpoint, settings, "attention.layer_norm_epsilon", 1e-5)
    return StockModel(_title(checkpoint, kind), config, {})


def _llama(checkpoint: Checkpoint, settings: dict[str, Any], kind: str, sizes: tuple[int, int, int]) -> StockModel:
    vocab, hidden, inner = sizes
    heads = _size(checkpoint, settings, "attention.head_count")
    groups = _size(checkpoint, settings, "attention.head_count_kv", heads)
    width = whole_number(checkpoint, settings, "attention.key_length") or head_dim(checkpoint, hidden, heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if _size(checkpoint, settings, key, width) != width:
            raise checkpoint.error(f"{key} is {settings[key]}, and heads of a {kind} have {width} everywhere here")
    if width % 2:
        raise checkpoint.error(f"heads have {width} numbers, which do not make pairs to rotate")
    biased = kind == "llama" and "blk.0.attn_q.bias" in checkpoint.tensors
    options: dict[str, Any] = {"attention_bias": biased}
    if kind == "llama":
        options["mlp_bias"] = "blk.0.ffn_up.bias" in checkpoint.tensors
    config = llama_config(
        qk_norm=kind == "qwen3",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=checkpoint.layers("blk."),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=width,
        max_position_embeddings=_size(checkpoint, settings, "context_length"),
        rms_norm_eps=number(checkpoint, settings, "attention.layer_norm_rms_epsilon", 1e-5),
        rope_parameters=_rotation(checkpoint, settings, width),
        **options,
    )
    for name in list(checkpoint.tensors) if kind == "llama" else ():
        if ".attn_q." in name or ".attn_k." in name:
            tensor = checkpoint.tensors[name]
            if tensor.ndim == 0 or len(tensor) % width:
                raise checkpoint.error(f"{name} has shape {tuple(tensor.shape)}, not rows for heads of {width}")
            checkpoint.tensors[name] = to_halves(tensor, width)
    for layer in range(config.num_hidden_layers) if biased else ():
        # Some models have biases for queries, keys and values alone: zeros are the same network.
        checkpoint.tensors.setdefault(f"blk.{layer}.attn_output.bias", torch.zeros(hidden))
    return StockModel(_title(checkpoint, kind), config, {})


def _rotation(checkpoint: Checkpoint, settings: dict[str, Any], width: int) -> dict[str, Any]:
    """transformers' `rope_parameters`. Raises UserError: a type that `scratch export` does not write either."""
    theta = number(checkpoint, settings, "rope.freq_base", 10_000.0)
    rope = {"rope_type": "default", "rope_theta": theta}
    kind = settings.get("rope.scaling.type", "linear")
    factor = number(checkpoint, settings, "rope.scaling.factor", 1.0)
    if kind not in ("none", "linear"):
        raise checkpoint.error(f"rope.scaling.type is {kind!r:.80}; scratch imports none, linear and Llama 3's")
    if kind == "linear" and factor not in (0, 1):
        rope |= {"rope_type": "linear", "factor": factor}
    if _DIVISORS in checkpoint.tensors:
        if rope["rope_type"] != "default" or not theta > 1:
            raise checkpoint.error(f"{_DIVISORS} beside another scaling of the rotation; scratch has one or the other")
        rope |= _llama3(checkpoint, checkpoint.take(_DIVISORS, width // 2), theta)
    return rope


def _llama3(checkpoint: Checkpoint, divisors: torch.Tensor, theta: float) -> dict[str, Any]:
    """Llama 3's scaling that gives these divisors (Llama 3 technical report; `rope_type: llama3` of transformers).

    A wave shorter than original / 4 tokens stays as it is, one longer than the original context is divided by the
    factor, and between the two the scale is linear in the frequency. So a wave in between tells the original context.
    """
    other = checkpoint.error(f"{_DIVISORS} is not the rotation of a Llama 3, the only scaling by a tensor here")
    factor = float(divisors.max())
    if not (divisors.isfinite().all() and divisors.min() > 0):
        raise other
    if factor == 1:
        return {}
    waves = 2 * math.pi * theta ** (torch.arange(len(divisors), dtype=torch.float64) / len(divisors))
    between = (divisors > 1.0001) & (divisors < factor * 0.9999)
    original = float(waves[divisors >= factor * 0.9999].min())  # a wave just too long, if there is none in between
    if between.any():
        smooth = (1 / divisors[between].cpu().double() - 1 / factor) / (1 - 1 / factor)
        original = float((waves[between] * (_LOW + smooth * (_HIGH - _LOW))).median())
    # A whole number, above all; one below the wave that is just too long.
    context = round(original) if between.any() else max(1, math.ceil(original) - 1)
    rope = {"rope_type": "llama3", "rope_theta": theta, "factor": float(f"{factor:.6g}")}
    rope |= {"low_freq_factor": _LOW, "high_freq_factor": _HIGH, "original_max_position_embeddings": context}
    config = llama_config(qk_norm=False, head_dim=2 * len(divisors), rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = theta ** -(torch.arange(len(divisors)) / len(divisors))
    if not torch.allclose(plain / scaled, divisors, rtol=1e-5, atol=0):
        raise other
    return rope
