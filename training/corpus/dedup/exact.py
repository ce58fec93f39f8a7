"""Exact duplicates: documents whose text is the same except for whitespace."""

import hashlib

import numpy as np


def content_hash(text: str) -> bytes:
    """A 16-byte hash, equal for texts that differ only in whitespace.

    Case and punctuation count: texts that differ in them are near duplicates, which another step finds.
    """
    return hashlib.blake2b("".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def as_array(hashes: list[bytes]) -> np.ndarray:
    """Content hashes as an array, to be kept in a file.  # (documents, 2) uint64"""
    return np.frombuffer(b"".join(hashes), np.dtype("<u8")).reshape(-1, 2)


def first_of_each(hashes: np.ndarray) -> np.ndarray:
    """For each document the number of the first one with the same hash: its own, unless it is a duplicate.

    Args:
        hashes: (documents, 2) uint64, may be a memory-mapped file. Takes about 60 bytes of memory a document.

    Returns:
        (documents,) int64; `first_of_each(hashes) == np.arange(len(hashes))` is the mask of those to keep.
    """
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: the documents of a group stay in order
    new = np.ones(len(order), bool)
    new[1:] = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    firsts = np.empty_like(order)
    firsts[order] = order[new][np.cumsum(new) - 1]
    return firsts
