"""llama2.c's `.bin` files, versions 0 and 1: seven sizes, then all tensors in fp32 in a fixed order."""

import math
import struct
from pathlib import Path

import numpy
import torch

from training.common.errors import UserError
from training.foreign.checkpoint import Checkpoint

_MAGIC = 0x616B3432  # "ak42"; version 0 has none
_HEADER = 256  # bytes of the header of version 1
_SIZES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
_MATRICES = (
    *("attention.wq", "attention.wk", "attention.wv", "attention.wo"),
    *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
)


def read_binary(file: Path) -> Checkpoint:
    """The tensors under the names of the `.pt` file, and its `model_args`.

    Raises:
        UserError: a quantized file, or one whose length is not that of its sizes.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(_HEADER)
    if len(head) < 28:
        raise UserError(f"'model': {file} is too short for a .bin of llama2.c; copy it again")
    magic, version = struct.unpack("<Ii", head[:8])
    if magic != _MAGIC:
        version = 0
    elif version != 1 or len(head) < _HEADER:
        raise UserError(
            f"'model': {file} is a .bin of llama2.c of version {version}, which holds int8 weights if it is 2; give "
            "the .pt file, or write it with export.py --version 0 or 1"
        )
    start = 8 if version else 0
    sizes = dict(zip(_SIZES, struct.unpack("<7i", head[start : start + 28])))
    tied = bool(head[start + 28]) if version else sizes["vocab_size"] > 0
    sizes["vocab_size"] = abs(sizes["vocab_size"])
    if min(sizes.values()) < 1 or sizes["dim"] % sizes["n_heads"]:
        raise UserError(f"'model': {file} is not a .bin of llama2.c: its header holds {sizes}; give another file")
    shapes = _shapes(sizes, version, tied)
    start = _HEADER if version else 28
    expected = start + 4 * sum(math.prod(shape) for _, shape in shapes)
    if size != expected:
        raise UserError(
            f"'model': {file} has {size} bytes, but a .bin of llama2.c with {sizes} has {expected}; copy it again"
        )
    tensors = {}
    with file.open("rb") as stream:
        stream.seek(start)
        for name, shape in shapes:
            values = numpy.fromfile(stream, "<f4", math.prod(shape)).reshape(shape)
            if "{}" not in name:
                tensors[name] = torch.from_numpy(values)
                continue
            for layer, part in enumerate(values):
                tensors[name.format(layer)] = torch.from_numpy(part.copy())
    return Checkpoint(file, tensors, {"model_args": sizes})


def _shapes(sizes: dict[str, int], version: int, tied: bool) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the file; `{}` stands for the layers, the first dimension."""
    hidden, inner, layers, heads, kv_heads, vocab, context = sizes.values()
    width = hidden // heads
    matrix = dict.fromkeys(_MATRICES, (layers, hidden, hidden))
    matrix |= dict.fromkeys(("attention.wk", "attention.wv"), (layers, kv_heads * width, hidden))
    matrix |= dict.fromkeys(("feed_forward.w1", "feed_forward.w3"), (layers, inner, hidden))
    matrix["feed_forward.w2"] = (layers, hidden, inner)
    stacked = [(f"layers.{{}}.{name}.weight", shape) for name, shape in matrix.items()]
    first, second = ((f"layers.{{}}.{name}.weight", (layers, hidden)) for name in ("attention_norm", "ffn_norm"))
    embedding, norm = ("tok_embeddings.weight", (vocab, hidden)), ("norm.weight", (hidden,))
    head = [] if tied else [("output.weight", (vocab, hidden))]
    if version:
        return [first, second, norm, embedding, *stacked, *head]
    tables = [("freqs_cos", (context, width // 2)), ("freqs_sin", (context, width // 2))]
    return [embedding, first, *stacked[:4], second, *stacked[4:], norm, *tables, *head]
