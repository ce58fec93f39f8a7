"""nanoGPT's `ckpt.pt`: a GPT-2 with the exact GELU, its sizes in `model_args`."""

import torch

from training.foreign.checkpoint import Checkpoint
from training.foreign.gpt2_names import KEYS, gpt2_sizes, read_gpt2
from training.foreign.sizes import Sizes, check_settings, mapping, number, whole_number
from training.foreign.stock import StockModel

NAME, FILE, KEYS = "nanoGPT", "ckpt.pt", KEYS


def matches(checkpoint: Checkpoint) -> bool:
    """Whether it has nanoGPT's tensors, and its `model_args` or its tied output matrix, which minGPT has not."""
    if not checkpoint.names() >= KEYS:
        return False
    head = checkpoint.tensors.get("lm_head.weight")
    tied = head is None or torch.equal(head, checkpoint.tensors["transformer.wte.weight"])
    return "model_args" in checkpoint.beside or tied


def read(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    """The model as GPT-2. A bare state dict lacks the number of heads."""
    settings = mapping(checkpoint, checkpoint.beside, "model_args")
    found = gpt2_sizes(checkpoint)
    check_settings(checkpoint, settings, found)
    sizes.agree(checkpoint, "context", found["block_size"], 1024)
    heads = sizes.agree(checkpoint, "heads", whole_number(checkpoint, settings, "n_head"), 6)
    return read_gpt2(checkpoint, NAME, heads, "gelu", number(checkpoint, settings, "dropout", 0.0))
