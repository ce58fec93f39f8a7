"""Near duplicates of a known similarity, and the true similarity of documents, counted and not estimated."""

import random
import re
from collections.abc import Iterable, Sequence

import numpy as np

from training.corpus.dedup.shingles import hash_runs, hash_words, words

SHINGLE = 5  # words


def shingles(text: str) -> set[tuple[str, ...]]:
    """All runs of `SHINGLE` words."""
    split = words(text)
    return {tuple(split[place : place + SHINGLE]) for place in range(len(split) - SHINGLE + 1)}


def jaccard(one: str, other: str) -> float:
    """True similarity: the shingles that both have, of those that either has."""
    first, second = shingles(one), shingles(other)
    return len(first & second) / max(1, len(first | second))


def plant(text: str, similarity: float, vocabulary: Sequence[str], draw: random.Random) -> tuple[str, float]:
    """The text with words replaced, left out and put in at random places until it is that similar to what it was.

    Returns:
        The edited text and its true similarity to `text`: the closest one that a whole number of edits gives.
    """
    edits = [
        (match.span(), draw.choice((draw.choice(vocabulary), "", f"{match[0]} {draw.choice(vocabulary)}")))
        for match in re.finditer(r"\w+", text)
    ]
    draw.shuffle(edits)

    def edited(count: int) -> str:
        parts, end = [], 0
        for (start, stop), word in sorted(edits[:count]):
            parts += text[end:start], word
            end = stop
        return "".join(parts) + text[end:]

    few, many = 0, len(edits)  # of edits: similar enough, and no longer so
    while many - few > 1:
        middle = (few + many) // 2
        if jaccard(text, edited(middle)) >= similarity:
            few = middle
        else:
            many = middle
    candidates = [(edited(count), jaccard(text, edited(count))) for count in (few, many)]
    return min(candidates, key=lambda candidate: abs(candidate[1] - similarity))


def nearest_similarity(texts: Sequence[str], of: Iterable[int]) -> dict[int, float]:
    """The true similarity of some documents to the document most similar to each, among all the others."""
    runs = [np.unique(hash_runs(hash_words([words(text)]), SHINGLE)) for text in texts]
    sizes = np.array([len(run) for run in runs])
    every, owners = np.concatenate(runs), np.repeat(np.arange(len(texts)), sizes)
    order = np.argsort(every, kind="stable")
    every, owners = every[order], owners[order]
    nearest = {}
    for number in of:
        starts, stops = np.searchsorted(every, runs[number], "left"), np.searchsorted(every, runs[number], "right")
        sharers = [owners[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        shared = np.bincount(np.concatenate(sharers), minlength=len(texts)) if sharers else np.zeros(len(texts))
        shared[number] = 0
        nearest[number] = float((shared / np.maximum(1, sizes + sizes[number] - shared)).max())
    return nearest
