"""A split in memory, of documents of given lengths."""

import numpy as np

from training.data.loader import TokenLoader
from training.data.mixture import Mixture
from training.data.packing import Packing
from training.data.shards import TokenShards

VOCAB_SIZE = 96


def split(lengths: list[int] | np.ndarray, seed: int = 0, numbered: bool = False) -> TokenShards:
    """Random tokens, the last of each document 0; or each token its own number, so that one sees where it went."""
    ends = np.cumsum(lengths)
    tokens = np.arange(ends[-1]) if numbered else np.random.default_rng(seed).integers(1, VOCAB_SIZE, ends[-1])
    if not numbered:
        tokens[ends - 1] = 0
    return TokenShards(tokens.astype(np.uint32), ends, text_bytes=0, vocab_size=VOCAB_SIZE)


def loader(packing: Packing, global_batch_size: int, seed: int = 0, **options) -> TokenLoader:
    return TokenLoader(Mixture("one"), [packing], global_batch_size, seed, **options)
