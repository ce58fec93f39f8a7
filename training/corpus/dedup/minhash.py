"""MinHash: a fixed number of integers per text; the fraction that two texts share estimates their Jaccard similarity.

Broder (1997), "On the resemblance and containment of documents". The set of a text is that of its shingles, the runs
of a few words; the Jaccard similarity of two sets is the size of their intersection over that of their union. Each of
the permutations is x -> a x + b modulo 2^32, with a odd, on 32-bit hashes of the shingles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from training.corpus.dedup.shingles import hash_characters, hash_runs, hash_words, random_factors, words
from training.stages.recipe import option

# For a text without shingles. Other texts have this value with probability 2^-32 per permutation.
NOTHING = np.uint32(0xFFFFFFFF)

_AT_ONCE = 1 << 18  # characters whose shingles go through the permutations together: they stay in the cache


@dataclass
class MinHashConfig:
    """MinHash signatures, and the similarity from which documents are near duplicates."""

    unit: Literal["words", "characters"] = option(
        "words", "unit of shingles: words (letters and digits in lower case), or characters"
    )
    shingle: int = option(
        5, "consecutive units in a shingle; shorter documents match only exact copies", at_least=1
    )
    threshold: float = option(
        0.75, "estimated Jaccard similarity from which the later of two documents is dropped", above=0, at_most=1
    )
    bands: int = option(20, "number of bands; documents that agree in all rows of a band are compared", at_least=1)
    rows: int = option(6, "integers per band; bands times rows is the number of permutations", at_least=1)
    seed: int = option(0, "seed for the permutations")

    @property
    def permutations(self) -> int:
        """Integers in a signature."""
        return self.bands * self.rows

    def probability(self, jaccard: float) -> float:
        """Probability that two documents of this similarity are compared (the S-curve of the bands)."""
        return 1 - (1 - jaccard**self.rows) ** self.bands


def signature(texts: Sequence[str], config: MinHashConfig) -> np.ndarray:
    """MinHash signatures of texts, the same in every process and on every machine.

    Returns:
        (documents, permutations) uint32; a row of `NOTHING` for a text that is shorter than a shingle.
    """
    signatures = np.full((len(texts), config.permutations), NOTHING)
    # (2, permutations): 32 upper bits of 64 random ones
    factors, offsets = random_factors(2 * config.permutations, f"minhash {config.seed}").reshape(2, -1) >> np.uint64(32)
    factors, offsets = (factors | np.uint64(1)).astype(np.uint32), offsets.astype(np.uint32)
    for start, stop in _chunks(texts):
        hashes, owners = _shingles(texts[start:stop], config)
        if not len(hashes):
            continue
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        minima = signatures[start + owners[firsts]]
        permuted = np.empty_like(hashes)
        for column, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
            np.multiply(hashes, factor, out=permuted)
            np.add(permuted, offset, out=permuted)
            minima[:, column] = np.minimum.reduceat(permuted, firsts)
        signatures[start + owners[firsts]] = minima
    return signatures


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of neighbouring texts of about `_AT_ONCE` characters, at least one text each."""
    start, size = 0, 0
    for number, text in enumerate(texts):
        if size and size + len(text) > _AT_ONCE:
            yield start, number
            start, size = number, 0
        size += len(text)
    if texts:
        yield start, len(texts)


def _shingles(texts: Sequence[str], config: MinHashConfig) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all shingles, uint32, and the text each belongs to, in order; none spans two texts."""
    if config.unit == "words":
        split = [words(text) for text in texts]
        hashes = hash_words(split)
    else:
        split = texts
        hashes = np.concatenate([hash_characters(text) for text in texts])
    owners = np.repeat(np.arange(len(texts)), [len(units) for units in split])
    runs = hash_runs(hashes, config.shingle)
    first, last = owners[: len(runs)], owners[config.shingle - 1 :]
    whole = first == last
    return (runs[whole] >> np.uint64(32)).astype(np.uint32), first[whole]
