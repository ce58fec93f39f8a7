"""A foreign model in the layout of transformers' Llama, Qwen3 or GPT-2, which `from_stock` converts to ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig, Qwen3Config

from training.foreign.checkpoint import Checkpoint

_NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


@dataclass
class StockModel:
    """A configuration and weights of transformers.

    Attributes:
        project: that wrote the checkpoint.
        tokenizer: the folder of the tokenizer that lies beside the checkpoint.
        begins: whether each text of the training began with the tokenizer's BOS, which then also ended the one before.
    """

    project: str
    config: PreTrainedConfig
    weights: dict[str, torch.Tensor]
    tokenizer: Path | None = None
    begins: bool = False


def head_dim(checkpoint: Checkpoint, hidden: int, heads: int) -> int:
    """Width of one head. Raises UserError: the number of heads does not divide the hidden size."""
    if hidden % heads:
        raise checkpoint.error(f"'heads' is {heads}, which does not divide {hidden}; give the number of the training")
    return hidden // heads


def gpt2_config(
    vocab: int, context: int, hidden: int, inner: int, layers: int, heads: int, activation: str, dropout: float
) -> PreTrainedConfig:
    """The configuration of a GPT-2."""
    sizes = {"vocab_size": vocab, "n_positions": context, "n_embd": hidden, "n_layer": layers, "n_head": heads}
    dropouts = {"embd_pdrop": dropout, "resid_pdrop": dropout, "attn_pdrop": dropout}
    return GPT2Config(**sizes, **dropouts, **_NO_TOKENS, n_inner=inner, activation_function=activation)


def llama_config(qk_norm: bool, **options: Any) -> PreTrainedConfig:
    """The configuration of a Llama, or of a Qwen3, which normalises queries and keys."""
    return (Qwen3Config if qk_norm else LlamaConfig)(**_NO_TOKENS, **options)


def to_halves(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Reorder the rows of each head, from neighbours that are rotated together to a coordinate of either half.

    Args:
        tensor: (heads * width, in), or (heads * width) for a bias.
    """
    return tensor.unflatten(0, (-1, width // 2, 2)).transpose(1, 2).flatten(0, 2)


def with_output(model: StockModel, checkpoint: Checkpoint, name: str, described: str = "") -> StockModel:
    """Add the output matrix, the last tensor of a checkpoint; without one, or if it is the embedding, tie it.

    Args:
        name: of the output matrix in the checkpoint.
        described: the model, for errors (default: its project).

    Raises:
        UserError: the checkpoint holds a tensor that no reader took.
    """
    embedding = "transformer.wte" if model.config.model_type == "gpt2" else "model.embed_tokens"
    head = checkpoint.take_output(name, model.weights[f"{embedding}.weight"])
    checkpoint.finish(described or model.project)
    model.config.tie_word_embeddings = head is None
    if head is not None:
        model.weights["lm_head.weight"] = head
    return model
