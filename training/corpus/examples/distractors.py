"""Distractors: wrong answers that length, origin and frequency do not give away."""

from collections.abc import Sequence

import numpy as np


class DistractorPicker:
    """Picks, for each of N items, others of similar length.

    Every item is picked about as often as every other (the least used come first), so an answer alone does not tell
    whether it is wrong. Among those, items of the same group come first, then the nearest in length.

    Args:
        lengths: of the N items, in any unit.
        groups: of the N items, such as their packages.
    """

    def __init__(self, lengths: Sequence[int], groups: Sequence[str], seed: int):
        self.lengths = np.asarray(lengths)
        self.groups = np.unique(np.asarray(groups), return_inverse=True)[1]
        self.used = np.zeros(len(self.lengths), dtype=np.int64)
        self.tie_break = np.random.default_rng(seed).permutation(len(self.lengths))

    def candidates(self, index: int, tolerance: float) -> np.ndarray:
        """Indices of the other items within `tolerance` of the length of item `index`, best first."""
        distance = np.abs(self.lengths - self.lengths[index])
        near = np.flatnonzero(distance <= tolerance)
        near = near[near != index]
        elsewhere = self.groups[near] != self.groups[index]
        # lexsort takes its last key first.
        return near[np.lexsort((self.tie_break[near], distance[near], elsewhere, self.used[near]))]

    def use(self, index: int) -> None:
        """Count an item as picked."""
        self.used[index] += 1
