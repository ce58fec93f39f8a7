"""Byte pairs merged in rounds: the tokens of long words, or of many words, with all independent merges at once.

Encoding merges the pair of the lowest rank again and again, so the ranks it merges rise. A pair (b, c) is merged in the
end if no merge of a lower rank takes b or c away. Which merges could? In "a b c d", those of (a, b) and (c, d); and, if
a and d grow before, those of b with a longer token that ends with a, and of c with a longer one that begins with d. The
lowest rank of these is known for any two neighbours from the vocabulary alone. A round merges all pairs whose rank is
below what could happen at both sides, with numpy.

Two cases are left. In "aaaa" the pairs overlap and their ranks are equal: the first is merged, then every other one.
And pairs can wait for each other in a circle: a longer token that the vocabulary has need not arise in this text. So a
round also merges the lowest rank of each part of the text, since new tokens only have pairs of higher ranks.

The tokens are those of merging one pair at a time. There are few rounds, for words of any length: a vocabulary of 8,000
merges took 5 for 200,000 letters, and 6 or 7 for a page of Chinese characters.
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
        left, right = np.array([*merges], np.int64).reshape(-1, 2).T
        self.first_merged, self._border = first_merged, first_merged + len(left)  # the border is in no pair
        self._symbols = np.array([byte_ids[byte] for byte in range(_BORDER[0])] + [self._border])
        ranks, endings, last = _at_one_end(left, right, first_merged)
        merges_with_right = self._key(endings, right[ranks]), ranks
        ranks, beginnings, first = _at_one_end(right, left, first_merged)
        merges_with_left = self._key(left[ranks], beginnings), ranks

        byte_of = np.zeros(first_merged, int)
        byte_of[list(byte_ids.values())] = list(byte_ids)
        self._together = np.zeros((256, 256), bool)  # whether two bytes stand side by side in a token
        self._together[byte_of[last], byte_of[first]] = True

        # The last key is above all others, so that a search for any pair ends at one.
        borders = self._key(self._border, self._border)
        self._keys = np.unique(np.concatenate([merges_with_right[0], merges_with_left[0], [borders]]))
        # Of two neighbours: the rank of their pair, and the lowest rank that takes the right one, and the left one.
        self._lowest = np.full((3, len(self._keys)), _NONE)
        merges_of_both = self._key(left, right), np.arange(len(left))
        for lowest, (keys, ranks) in zip(self._lowest, (merges_of_both, merges_with_right, merges_with_left)):
            np.minimum.at(lowest, np.searchsorted(self._keys, keys), ranks.astype(np.int32))
        self._lowest_of_bytes = self._look_up(self._symbols[:, None], self._symbols)

    def merge(self, words: Iterable[str]) -> list[tuple[int, ...]]:
        """Token ids of words, of which there is at least one.

        All words are one sequence, each with a border after it. The sequence is a doubly linked list: a merge leaves
        the new token in the place of its left part and takes out the right one. `lowest` is that of the pairs that
        begin at each place.
        """
        text = np.frombuffer(_BORDER.join([*(word.encode() for word in words), b""]), np.uint8)
        part_of = np.append(0, np.cumsum(~self._together[text[:-1], text[1:]]))  # no token joins two parts
        symbols, places = self._symbols[text], np.arange(len(text))
        before, behind = places - 1, np.minimum(places + 1, places[-1])  # the last border is behind itself
        lowest = self._lowest_of_bytes[:, text, text[behind]]
        ranks, takes_right, takes_left = lowest
        while len(places := np.flatnonzero(ranks != _NONE)):
            rank, place_before = ranks[places], before[places]  # before the first place is the last one, a border
            numbers = np.arange(len(places))
            run = np.maximum.accumulate(np.where(ranks[place_before] == rank, 0, numbers))  # where its run begins
            # An equal rank at the right is no hindrance: of overlapping equal pairs the first goes first.
            merged = (takes_right[place_before[run]] > rank) & (takes_left[behind[places]] >= rank)
            merged |= rank == _lowest_of_part(rank, part_of[places])
            left = places[merged & ((numbers - run) % 2 == 0)]
            right = behind[left]
            symbols[left] = self.first_merged + ranks[left]
            symbols[right], ranks[right] = _OUT, _NONE
            behind[left] = behind[right]
            before[behind[left]] = left
            changed = np.append(left, before[left])
            lowest[:, changed] = self._look_up(symbols[changed], symbols[behind[changed]])
        return self._cut(symbols[symbols != _OUT])

    def _cut(self, symbols: np.ndarray) -> list[tuple[int, ...]]:
        """The words of a sequence, without the borders behind them."""
        borders = np.flatnonzero(symbols == self._border).tolist()
        # Tuples, not lists: Python's garbage collector leaves tuples of numbers alone.
        symbols, starts = tuple(symbols.tolist()), [0, *(border + 1 for border in borders)]
        return [symbols[start:border] for start, border in zip(starts, borders)]

    def _key(self, left: int | np.ndarray, right: int | np.ndarray) -> int | np.ndarray:
        return left * (self._border + 1) + right

    def _look_up(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Three ranks of each two neighbours, see `_lowest`; `_NONE` where there is no such merge."""
        keys = self._key(left, right)
        places = np.searchsorted(self._keys, keys)
        return np.where(self._keys[places] == keys, self._lowest[:, places], _NONE)


def _at_one_end(tokens: np.ndarray, parts: np.ndarray, first_merged: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All that stands at one end of tokens: themselves, their part there, the part of that, and so on to a byte.

    Args:
        tokens: ids.
        parts: the part of each merged token that is at this end.

    Returns:
        Indices into `tokens`, the ids of all that stands at the end of each, and the id of the byte at each end.
    """
    outermost = tokens.copy()
    all_indices, found = [np.arange(len(tokens))], [tokens]
    while len(indices := np.flatnonzero(outermost >= first_merged)):
        outermost[indices] = parts[outermost[indices] - first_merged]
        all_indices.append(indices)
        found.append(outermost[indices])
    return np.concatenate(all_indices), np.concatenate(found), outermost


def _lowest_of_part(rank: np.ndarray, part: np.ndarray) -> np.ndarray:
    """For each of some pairs, the lowest rank in its part of the text. `part` is ascending."""
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    return np.repeat(np.minimum.reduceat(rank, starts), np.diff(starts, append=len(part)))
