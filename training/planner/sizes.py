"""Architectures of a given size: width, layers, heads and vocabulary for a number of parameters."""

import math

from training.planner.architecture import Architecture

# Width and layers of models that were published with these sizes; between them the ratio of width to layers is
# interpolated. GPT-2 small, TinyLlama, Llama 7B and Llama 70B.
_RATIOS = ((256, 64), (768, 64), (2048, 93), (4096, 128), (8192, 102))
# Rows of the embedding, from parameters of the model: else a small model is little but an embedding.
_VOCABULARIES = ((3e6, 2048), (30e6, 8192), (3e9, 32768), (math.inf, 131072))

_WIDTHS = (
    *(*range(64, 512, 64), *range(512, 1024, 128), *range(1024, 2048, 256)),
    *(*range(2048, 4096, 512), *range(4096, 24577, 1024)),
)


def architecture_of_size(parameters: float, preset: str = "llama", vocab_size: int | None = None) -> Architecture:
    """An architecture of about so many parameters, embeddings included.

    Heads have 128 dimensions from a width of 1,024 on, else 64. From 1B parameters on, four query heads share a key and
    value head; from 3B on there are eight key and value heads, where that divides. GPT-2 shares none.

    Args:
        parameters: wanted; the result is the nearest on a grid of widths and layers.
        vocab_size: None: 8,192 to 131,072, by size.
    """
    if vocab_size is None:
        vocab_size = next(size for limit, size in _VOCABULARIES if parameters < limit)
    candidates = []
    for width in _WIDTHS:
        layers = max(1, round(width / _ratio(width)))
        estimate = 12 * layers * width**2 + 2 * vocab_size * width
        if 0.3 < estimate / parameters < 3:  # else no number of layers near this one comes close
            spread = 3 if width <= 4096 else layers // 4
            counts = range(max(1, layers - spread), layers + spread + 1)
            candidates += [_build(parameters, preset, vocab_size, width, count) for count in counts]
    if not candidates:
        candidates = [_build(parameters, preset, vocab_size, 64, 1)]
    return min(candidates, key=lambda architecture: abs(math.log(architecture.num_parameters / parameters)))


def _build(parameters: float, preset: str, vocab_size: int, width: int, layers: int) -> Architecture:
    head = 128 if width >= 1024 else 64
    heads = width // head
    group = 1 if preset == "gpt2" or parameters < 0.9e9 else math.gcd(heads, 4)
    if preset != "gpt2" and parameters >= 3e9 and heads % 8 == 0:
        group = heads // 8  # so that eight devices can share them
    inner = width * 8 / 3 if preset in ("llama", "qwen3") else width * 4
    return Architecture.from_preset(
        preset,
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=-int(-inner // 256) * 256 if width >= 1024 else -int(-inner // 64) * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // group,
        head_dim=head,
        max_position_embeddings=4096 if parameters >= 3e9 else 2048 if parameters >= 3e8 else 1024,
    )


def _ratio(width: int) -> float:
    """Width over layers at this width."""
    if width <= _RATIOS[0][0]:
        return _RATIOS[0][1]
    for (left, low), (right, high) in zip(_RATIOS, _RATIOS[1:]):
        if width <= right:
            return low + (high - low) * (width - left) / (right - left)
    return _RATIOS[-1][1]
