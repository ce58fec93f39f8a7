"""Byte pairs merged in rounds: the tokens of long words, many merges at a time.

Encoding merges the pair of the lowest rank again and again. Most of these merges do not depend on each other. Let a
round be the ranks from `start` to `stop` such that none of them merges a token that another one of them makes. Then no
merge of the round can bring forth a pair of the round: all its pairs are there when it begins, and what is left is to
choose between pairs that overlap (in "abc", if both "ab" and "bc" have a rank). The lower rank goes first; of equal
ones, as in "aaaa", the first and then every other one. All chosen pairs are merged together, with numpy.

Merges are learned in an order in which most use much older tokens, so rounds are few: 50 for 3,832 merges learned from
Python source. The tokens are those of merging one pair at a time.
"""

from collections.abc import Iterable

import numpy as np

_NONE = np.iinfo(np.int32).max  # the rank of a pair that is never merged


def rounds(merges: Iterable[tuple[int, int]], first_merged: int) -> list[int]:
    """Where each round of ranks ends.

    Args:
        merges: pairs of ids by their rank; rank r makes the token `first_merged + r`.
    """
    stops, start = [], 0
    for rank, pair in enumerate(merges):
        if max(pair) - first_merged >= start:  # made by a merge of this round
            stops.append(rank)
            start = rank
    return [*stops, rank + 1]


class RoundMerger:
    """Merges the bytes of words, in a time that grows as their length.

    Args:
        merges: at least one, pairs of ids by their rank; rank r makes the token `first_merged + r`.
    """

    def __init__(self, merges: Iterable[tuple[int, int]], first_merged: int):
        merges = list(merges)
        self.first_merged, self.stops = first_merged, rounds(merges, first_merged)
        self._outside = first_merged + len(merges)  # an id that no pair has
        keys = np.array([self._key(left, right) for left, right in merges], np.int64)
        order = np.argsort(keys)
        self._keys, self._ranks_by_key = keys[order], order.astype(np.int32)

    def merge(self, words: list[list[int]]) -> list[list[int]]:
        """Token ids of words from those of their bytes.

        All words are one sequence, with an id between them that no pair has. The sequence is a doubly linked list, and
        each merge leaves its left token in place and takes out the right one. `ranks` are those of the pairs that begin
        at each place.
        """
        symbols = np.array([symbol for word in words for symbol in (*word, self._outside)], np.int64)
        size = len(symbols)
        before, behind = np.arange(-1, size - 1), np.arange(1, size + 1)
        behind[-1] = size - 1  # never followed: the last place is a border between words, like each place before a word
        ranks = np.append(self._ranks(symbols[:-1], symbols[1:]), np.int32(_NONE))
        for stop in self.stops:
            left = _chosen(np.flatnonzero(ranks < stop), ranks, behind)
            if not len(left):
                continue
            right = behind[left]
            symbols[left] = self.first_merged + ranks[left]
            symbols[right], ranks[right] = -1, _NONE
            behind[left] = behind[right]
            before[behind[left]] = left
            for place in (left, before[left]):
                ranks[place] = self._ranks(symbols[place], symbols[behind[place]])
        return self._cut(symbols[symbols >= 0])

    def _cut(self, symbols: np.ndarray) -> list[list[int]]:
        borders = np.flatnonzero(symbols == self._outside).tolist()
        symbols, start, words = symbols.tolist(), 0, []
        for border in borders:
            words.append(symbols[start:border])
            start = border + 1
        return words

    def _key(self, left, right):
        return left * (self._outside + 1) + right

    def _ranks(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The rank of each pair, `_NONE` if it has none."""
        keys = self._key(left, right)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._ranks_by_key[places], _NONE)


def _chosen(places: np.ndarray, ranks: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """The pairs to merge: of overlapping ones the lowest rank, of an equal run every other one from its start.

    Args:
        places: where pairs of the round begin, ascending.

    Returns:
        The places of pairs that do not overlap.
    """
    chosen = []
    while len(places):
        rank = ranks[places]
        touches = behind[places[:-1]] == places[1:]  # whether a pair overlaps with the next one
        # Runs of overlapping pairs of an equal rank: their first pairs, and whether the pairs around them may go first.
        starts = np.flatnonzero(np.append(True, ~touches | (rank[1:] != rank[:-1])))
        lower = touches & (rank[:-1] < rank[1:]), touches & (rank[1:] < rank[:-1])
        blocked = np.append(False, lower[0])[starts] | np.append(lower[1], False)[np.append(starts[1:], len(rank)) - 1]
        run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rank)))
        take = ~blocked[run] & ((np.arange(len(rank)) - starts[run]) % 2 == 0)
        chosen.append(places[take])
        gone = take.copy()
        gone[1:] |= touches & take[:-1]
        gone[:-1] |= touches & take[1:]
        places = places[~gone]
    return np.sort(np.concatenate(chosen)) if chosen else places
