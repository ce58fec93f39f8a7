"""Batches of sequences of similar length, so that little is padding."""

from collections.abc import Iterator, Sequence

import torch


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices of sequences in batches of at most `size`, longest first: running out of memory happens at once or never.

    Sequences of equal length keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True)
    for first in range(0, len(order), size):
        yield order[first : first + size]


def by_tokens(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of sequences in batches of at most `budget` tokens, padding included, longest first.

    A sequence that is longer than the budget is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(rows: list[list[int]], padding: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences as one tensor, padded on the right, or on the left for generation.

    Returns:
        Token ids and attention mask, (batch, seq) int64 each.
    """
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        span = slice(ids.shape[1] - len(row), None) if left else slice(len(row))
        ids[place, span] = torch.tensor(row, dtype=torch.long)
        mask[place, span] = 1
    return ids, mask
