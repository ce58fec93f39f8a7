"""Copies across splits: validation documents most of whose long lines occur in training text.

Packages copy files from each other, with another import or name here and there. Whole packages are held out, so such a
copy would leak training text into validation. The lines of the held-out documents are in memory.
"""

from collections.abc import Iterable

import numpy as np

from training.corpus.sources import Document

MAX_REPEATED = 0.5  # share of its long lines; a held-out document that repeats more is a copy
LONG_LINE = 25  # characters: long enough that two authors rarely write the same line


def long_lines(text: str) -> set[str]:
    """The distinct lines, without indentation, that are long enough to identify their author."""
    lines = (line.strip() for line in text.split("\n"))
    return {line for line in lines if len(line) >= LONG_LINE}


def copies_across_splits(held_out: Iterable[tuple[int, Document]], training: Iterable[Document]) -> np.ndarray:
    """Numbers of the held-out documents that are copies of training text.  # (copies,) int64

    Args:
        held_out: numbered documents.
    """
    lines_of = {number: long_lines(document.text) for number, document in held_out}
    sought, known = set().union(*lines_of.values()), set()
    for document in training:
        known |= sought & long_lines(document.text)
    copies = [number for number, lines in lines_of.items() if len(lines & known) > MAX_REPEATED * len(lines)]
    return np.array(copies, dtype=np.int64)
