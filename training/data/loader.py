"""Batches as a pure function of (seed, step).

The token stream of a split is cut in windows of `sequence_length` predictions. An epoch visits them in a seeded random
order; which windows make up step n follows from the seed and n alone. Resuming is therefore exact and costs nothing,
and the order does not depend on how many processes share the batch.
"""

from functools import lru_cache

import numpy as np
import torch

from training.data.shards import TokenShards
from training.errors import UserError


class TokenLoader:
    """Windows of a split, by step.

    Args:
        shards: an opened split.
        sequence_length: predictions per window; a window holds one token more.
        global_batch_size: windows per optimizer step, over all processes and accumulation steps.
        seed: of the order.

    Raises:
        UserError: the split holds fewer tokens than one batch.
    """

    def __init__(self, shards: TokenShards, sequence_length: int, global_batch_size: int, seed: int):
        self.shards = shards
        self.tokens = shards.tokens
        self.sequence_length = sequence_length
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.num_windows = (len(self.tokens) - 1) // sequence_length
        if self.num_windows < global_batch_size:
            raise UserError(
                f"the split holds {len(self.tokens):,} tokens, less than one batch of {global_batch_size} x "
                f"{sequence_length}; give more text or lower global_batch_size or sequence_length"
            )
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)

    def windows(self, step: int) -> np.ndarray:
        """The numbers of the windows of one step, (global_batch_size,)."""
        positions = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        epochs, offsets = np.divmod(positions, self.num_windows)
        return np.array([self._order(epoch)[offset] for epoch, offset in zip(epochs, offsets, strict=True)])

    def documents(self, windows: np.ndarray) -> list[int]:
        """The numbers of the documents that the given windows have tokens of."""
        starts = windows * self.sequence_length
        ends = self.shards.document_ends
        first, last = (np.searchsorted(ends, at, side="right") for at in (starts, starts + self.sequence_length))
        return sorted({document for span in zip(first, last, strict=True) for document in range(span[0], span[1] + 1)})

    def batch(self, step: int, start: int, stop: int) -> torch.LongTensor:
        """Rows `start` to `stop` of the batch of a step, (rows, sequence_length + 1)."""
        return self.read(self.windows(step)[start:stop])

    def read(self, windows: np.ndarray) -> torch.LongTensor:
        """Tokens of the given windows, (len(windows), sequence_length + 1)."""
        starts = windows[:, None] * self.sequence_length
        return torch.from_numpy(self.tokens[starts + np.arange(self.sequence_length + 1)].astype(np.int64))

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, int(epoch))).permutation(self.num_windows)
