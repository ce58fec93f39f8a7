"""The tensors of nanoGPT and minGPT: GPT-2's names, with matrices stored as (out, in)."""

import torch

from training.foreign.checkpoint import Checkpoint
from training.foreign.stock import StockModel, gpt2_config, head_dim, with_output

KEYS = frozenset(
    {
        "transformer.wte.weight",
        "transformer.wpe.weight",
        "transformer.ln_f.weight",
        *(
            f"transformer.h.N.{name}.weight"
            for name in ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        ),
    }
)


def gpt2_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """The sizes that the tensors have, by the names that both projects use."""
    vocab, hidden = checkpoint.shape("transformer.wte.weight")
    return {
        "vocab_size": vocab,
        "block_size": checkpoint.shape("transformer.wpe.weight")[0],
        "n_embd": hidden,
        "n_layer": checkpoint.layers("transformer.h."),
    }


def read_gpt2(checkpoint: Checkpoint, project: str, heads: int, activation: str, dropout: float) -> StockModel:
    """The model. Without biases, zeros take their place, which is the same network.

    Args:
        activation: transformers' name.
    """
    checkpoint.ignore(r"\.attn\.(masked_)?bias$")  # the causal mask
    vocab, context, hidden, layers = gpt2_sizes(checkpoint).values()
    head_dim(checkpoint, hidden, heads)
    inner = checkpoint.shape("transformer.h.0.mlp.c_fc.weight")[0]
    biased = "transformer.h.0.ln_1.bias" in checkpoint.tensors
    shapes = {
        "ln_1": (hidden,),
        "attn.c_attn": (3 * hidden, hidden),
        "attn.c_proj": (hidden, hidden),
        "ln_2": (hidden,),
        "mlp.c_fc": (inner, hidden),
        "mlp.c_proj": (hidden, inner),
    }
    weights = {
        "transformer.wte.weight": checkpoint.take("transformer.wte.weight", vocab, hidden),
        "transformer.wpe.weight": checkpoint.take("transformer.wpe.weight", context, hidden),
    }
    places = {f"transformer.h.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
    for name, shape in (places | {"transformer.ln_f": (hidden,)}).items():
        weight = checkpoint.take(f"{name}.weight", *shape)
        zeros = torch.zeros(shape[0], dtype=weight.dtype)
        weights[f"{name}.bias"] = checkpoint.take(f"{name}.bias", shape[0]) if biased else zeros
        weights[f"{name}.weight"] = weight.T.contiguous() if len(shape) == 2 else weight
    config = gpt2_config(vocab, context, hidden, inner, layers, heads, activation, dropout)
    return with_output(StockModel(project, config, weights), checkpoint, "lm_head.weight")
