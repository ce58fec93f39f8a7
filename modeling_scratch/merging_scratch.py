"""Byte pairs merged in rounds: the tokens of long words, or of many words, with all independent merges at once.

Encoding merges the pair of the lowest rank again and again. A merge makes new pairs, but all of them contain its token,
and so have at least the rank in which this token is used first. Take the pairs of a word at some
moment, and let `bound` be the lowest such rank of all the tokens that they would make. Until the pairs below `bound`
are used up, no new pair below it can appear. They are merged together, with numpy; what remains is to choose between
those that overlap (in "abc", if both "ab" and "bc" are below). The lower rank goes first; of equal ones, as in "aaaa",
the first and then every other one.

The tokens are those of merging one pair at a time. There are few rounds, for words of any length: a vocabulary of 8,000
merges took 6 for 200,000 letters, and some 20 for a page of Chinese characters.
"""

from collections.abc import Iterable

import numpy as np

Pair = tuple[int, int]  # the ids of two adjacent tokens

_NONE = np.int32(np.iinfo(np.int32).max)  # the rank of a pair that is never merged
_OUT = -1  # in the place of a token that has become the right part of another
_BORDER = b"\xff"  # the last byte, which occurs nowhere in UTF-8


class RoundMerger:
    """Merges the bytes of words, in time that is linear in their length.

    Args:
        merges: pairs of ids by their rank; rank r makes the token `first_merged + r`.
        byte_ids: the id of each byte.
    """

    def __init__(self, merges: Iterable[Pair], byte_ids: dict[int, int], first_merged: int):
        merges = list(merges)
        self.first_merged, self._border = first_merged, first_merged + len(merges)  # the border is in no pair
        self._symbols = np.array([byte_ids[byte] for byte in range(_BORDER[0])] + [self._border])
        # The last key is above all others, so that a search for any pair ends at one.
        keys = np.array([self._key(left, right) for left, right in (*merges, (self._border, self._border))])
        order = np.argsort(keys)
        self._keys, self._ranks_by_key = keys[order], np.where(order < len(merges), order, _NONE).astype(np.int32)

        self._first_use = np.full(len(merges), _NONE)  # of the token that each rank makes
        self._together = np.zeros((256, 256), bool)  # whether two bytes stand side by side in a token
        ends = {index: (byte, byte) for byte, index in byte_ids.items()}  # first and last byte of a token
        for rank, pair in enumerate(merges):
            for token in pair:
                if token >= first_merged:
                    self._first_use[token - first_merged] = min(self._first_use[token - first_merged], rank)
            (first, last), (next_first, next_last) = ends[pair[0]], ends[pair[1]]
            ends[first_merged + rank] = first, next_last
            self._together[last, next_first] = True

    def merge(self, words: Iterable[str]) -> list[list[int]]:
        """Token ids of words, of which there is at least one.

        All words are one sequence, each with a border after it. The sequence is a doubly linked list: a merge leaves
        the new token in the place of its left part and takes out the right one. `ranks` are those of the pairs that
        begin at each place.
        """
        text = np.frombuffer(_BORDER.join([*(word.encode() for word in words), b""]), np.uint8)
        # Parts that no token joins, which are words or shorter. Each has its own bound.
        part_of = np.append(0, np.cumsum(~self._together[text[:-1], text[1:]]))
        symbols, places = self._symbols[text], np.arange(len(text))
        before, behind = places - 1, np.minimum(places + 1, places[-1])  # the last border is behind itself
        ranks = self._ranks(symbols, symbols[behind])
        while len(places := np.flatnonzero(ranks != _NONE)):
            parts, rank = part_of[places], ranks[places]
            starts = np.flatnonzero(np.diff(parts, prepend=-1))
            bounds = np.minimum.reduceat(self._first_use[rank], starts)
            left = _chosen(places[rank < np.repeat(bounds, np.diff(starts, append=len(parts)))], ranks, behind)
            right = behind[left]
            symbols[left] = self.first_merged + ranks[left]
            symbols[right], ranks[right] = _OUT, _NONE
            behind[left] = behind[right]
            before[behind[left]] = left
            for place in (left, before[left]):  # before the first place is the last one, a border
                ranks[place] = self._ranks(symbols[place], symbols[behind[place]])
        return self._cut(symbols[symbols != _OUT])

    def _cut(self, symbols: np.ndarray) -> list[list[int]]:
        """The words of a sequence, without the borders behind them."""
        borders = np.flatnonzero(symbols == self._border).tolist()
        symbols, starts = symbols.tolist(), [0, *(border + 1 for border in borders)]
        return [symbols[start:border] for start, border in zip(starts, borders)]

    def _key(self, left: int | np.ndarray, right: int | np.ndarray) -> int | np.ndarray:
        return left * (self._border + 1) + right

    def _ranks(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The rank of each pair, `_NONE` if it has none."""
        keys = self._key(left, right)
        places = np.searchsorted(self._keys, keys)
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
        # Runs of overlapping pairs of an equal rank wait while a pair before or behind them has a lower one.
        starts = np.flatnonzero(np.append(True, ~touches | (rank[1:] != rank[:-1])))
        ends = np.append(starts[1:], len(places)) - 1
        waits = np.append(False, touches & (rank[:-1] < rank[1:]))[starts]
        waits |= np.append(touches & (rank[1:] < rank[:-1]), False)[ends]
        run = np.repeat(np.arange(len(starts)), ends - starts + 1)
        take = ~waits[run] & ((np.arange(len(places)) - starts[run]) % 2 == 0)
        chosen.append(places[take])
        gone = take.copy()
        gone[1:] |= touches & take[:-1]
        gone[:-1] |= touches & take[1:]
        places = places[~gone]
    return np.sort(np.concatenate(chosen))
