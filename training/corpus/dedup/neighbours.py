"""Near duplicates among MinHash signatures: found by bands, verified on whole signatures; the earlier document is kept.

A document is dropped when one that is *kept* precedes it and the two signatures agree on at least `threshold` of their
permutations. A document that is similar only to a dropped one is kept: of a chain A ~ B ~ C, where A and C differ, A
and C are kept. (Connected components, the usual choice, would keep A alone.) So every dropped document has a kept one
that is similar to it, and the pairs can be inspected.

Two documents are compared when they agree on a band, and one of them is among the first `LEADERS` of all that do. Large
groups therefore cost as much per document as small ones. A document is missed if its near duplicates are never among
the first of a group. Equal signatures are counted as one document, and cost nothing.

Of the similar documents before a document, the first `LEADERS` found in any band count. So bands may be searched in any
order, and apart from each other (partitioned.py).

Memory, without the signatures (which may be a memory-mapped file): about 100 bytes a document, and 8 for each of at
most `LEADERS` pairs of a document that has any; three times that while they are sorted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from training.corpus.dedup.minhash import NOTHING, MinHashConfig
from training.corpus.dedup.shingles import random_factors

LEADERS = 8
_ROWS_AT_ONCE = 1 << 16  # signatures read into memory together


@dataclass
class NearDuplicates:
    """The documents to drop, in order, each with the kept document that it repeats.

    Attributes:
        dropped: (duplicates,) int64, document numbers, ascending.
        kept: (duplicates,) int64, the earliest kept document that each was found similar to.
        jaccard: (duplicates,) float32, estimated similarity of the two.
    """

    dropped: np.ndarray
    kept: np.ndarray
    jaccard: np.ndarray


def near_duplicates(signatures: np.ndarray, config: MinHashConfig) -> NearDuplicates:
    """The documents that repeat an earlier kept one: a function of the arguments alone.

    Args:
        signatures: (documents, permutations) uint32 of `minhash.signature`, may be a memory-mapped file. Documents
            without a shingle are neither dropped nor kept in another's place.
    """
    if len(signatures) >= 1 << 32:
        raise ValueError(f"at most 2^32 documents in one process, not {len(signatures)}: use an engine")
    twins = first_with_same(hash_rows(signatures))
    usable = np.empty(len(signatures), bool)
    for part in _parts(len(signatures)):
        usable[part] = signatures[part, 0] != NOTHING
    distinct = np.flatnonzero(usable & (twins == np.arange(len(twins))))

    pairs = np.empty(0, np.uint64)
    beyond = np.full(len(signatures), 0xFFFFFFFF, np.uint32)  # from here on, earlier documents are too many
    for band in range(config.bands):
        columns = slice(band * config.rows, (band + 1) * config.rows)
        found = _pack(*candidates(hash_rows(signatures[:, columns])[distinct], distinct))
        earlier, later = _unpack(found)
        found = np.setdiff1d(found[earlier < beyond[later]], pairs, assume_unique=True)
        similar = jaccard(signatures, *_unpack(found)) >= config.threshold
        pairs = _first_of_each_later(np.sort(np.concatenate([pairs, found[similar]])))
        earlier, later = _unpack(pairs)
        full = later[LEADERS - 1 :] == later[: max(0, len(later) - LEADERS + 1)]
        beyond[later[LEADERS - 1 :][full]] = earlier[LEADERS - 1 :][full]

    winners = _resolve(pairs, len(signatures))
    winners = np.where(usable, winners[twins], np.arange(len(twins)))
    dropped = np.flatnonzero(winners != np.arange(len(winners)))
    kept = winners[dropped]
    return NearDuplicates(dropped, kept, jaccard(signatures, kept, dropped))


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, count))


def hash_rows(columns: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row.  # (documents, columns) to (documents,)"""
    factors = random_factors(columns.shape[1], "rows")
    keys = np.empty(len(columns), np.uint64)
    for part in _parts(len(columns)):
        keys[part] = columns[part].astype(np.uint64) @ factors
    return keys


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Documents sorted by key, those of a group in order, and whether each of them is the first of its group."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return order, new


def first_with_same(keys: np.ndarray) -> np.ndarray:
    """For each document the first one with the same key."""
    order, new = _groups(keys)
    firsts = np.empty_like(order)
    firsts[order] = order[new][np.cumsum(new) - 1]
    return firsts


def candidates(keys: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of each document with the first `LEADERS` of those before it that have its key: the earlier ones and the
    later ones, unsorted."""
    order, new = _groups(keys)
    places = np.flatnonzero(~new)
    starts = np.flatnonzero(new)[np.cumsum(new)[places] - 1]
    earlier, later = [], []
    for rank in range(LEADERS):
        behind = places - starts > rank
        earlier.append(documents[order[starts[behind] + rank]])
        later.append(documents[order[places[behind]]])
    return np.concatenate(earlier), np.concatenate(later)


def _pack(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Pairs as single numbers, which sort by the later document, then by the earlier."""
    return later.astype(np.uint64) << np.uint64(32) | earlier.astype(np.uint64)


def _unpack(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64), (pairs >> np.uint64(32)).astype(np.int64)


def jaccard(signatures: np.ndarray, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """The share of permutations that two documents agree on.  # (pairs,) float32"""
    shares = np.empty(len(earlier), np.float32)
    for part in _parts(len(earlier)):
        shares[part] = (signatures[earlier[part]] == signatures[later[part]]).mean(axis=1, dtype=np.float32)
    return shares


def _first_of_each_later(pairs: np.ndarray) -> np.ndarray:
    """The first `LEADERS` of the sorted pairs of each later document, which bounds the memory for pairs."""
    if len(pairs) <= LEADERS:
        return pairs
    later = pairs >> np.uint64(32)
    crowded = np.zeros(len(pairs), bool)
    crowded[LEADERS:] = later[LEADERS:] == later[:-LEADERS]
    return pairs[~crowded]


def _resolve(pairs: np.ndarray, count: int) -> np.ndarray:
    """For each document its earliest similar one that is kept, else itself.  # (documents,) int64"""
    winners = np.arange(count)
    for part in _parts(len(pairs)):
        earlier, later = _unpack(pairs[part])
        for one, other in zip(earlier.tolist(), later.tolist(), strict=True):
            if winners[one] == one and winners[other] == other:
                winners[other] = one
    return winners
