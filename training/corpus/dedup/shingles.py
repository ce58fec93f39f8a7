"""Shingles: words and runs of words as 64-bit hashes, in arrays, for near duplicates and evaluation items.

A word is a match of `\\w+` in the text in lower case, so punctuation, case and whitespace make no difference. The hash
of a word is BLAKE2b's, cached; that of a run of words is a sum of the words' hashes with a random odd factor for each
place (multilinear hashing, Lemire and Kaser 2014, arXiv 1202.4961). Both are the same in every process and machine.
"""

import hashlib
import re
from collections.abc import Sequence
from itertools import chain

import numpy as np

_WORD = re.compile(r"\w+")
_REMEMBERED = 1_000_000  # words, about 150 MB


class _WordHashes(dict[str, int]):
    """Cache of word hashes, which is cleared when it is full."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "little")
        return value


_word_hashes = _WordHashes()


def words(text: str) -> list[str]:
    """Words of a text, in lower case and without punctuation."""
    return _WORD.findall(text.lower())


def hash_words(texts: Sequence[list[str]]) -> np.ndarray:
    """The hashes of all words of several texts, one after the other.  # (words,) uint64"""
    count = sum(map(len, texts))
    return np.fromiter(map(_word_hashes.__getitem__, chain.from_iterable(texts)), np.uint64, count)


def hash_characters(text: str) -> np.ndarray:
    """A hash of each character of a text, by the finalizer of SplitMix64.  # (characters,) uint64"""
    values = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4")).astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hash_runs(hashes: np.ndarray, size: int) -> np.ndarray:
    """The hash of every run of `size` neighbours.  # (units,) to (units - size + 1,), none if they are fewer"""
    count = max(0, len(hashes) - size + 1)
    runs = np.zeros(count, np.uint64)
    for place, factor in enumerate(random_factors(size, "runs")):
        runs += hashes[place : place + count] * factor
    return runs


def random_factors(count: int, name: str) -> np.ndarray:
    """Odd factors, drawn from the name alone; a longer draw begins with the shorter one.  # (count,) uint64"""
    return np.frombuffer(hashlib.shake_128(name.encode()).digest(8 * count), np.dtype("<u8")) | np.uint64(1)
