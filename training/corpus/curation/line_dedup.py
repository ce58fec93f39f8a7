"""What is left of documents without the lines that others keep: sizes, found by reading every text once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.common.files import open_whole
from training.corpus.curation.selection import PlacedBlock, Verdicts


@dataclass(frozen=True)
class PrunedPart:
    """The documents of a part of a source, and the file for what `pruned` says of them."""

    blocks: list[PlacedBlock]
    file: Path


def pruned(verdicts: Verdicts, blocks: Iterable[PlacedBlock]) -> np.ndarray:
    """Of each document that has not been dropped its bytes, and whether nothing but white space is left.

    Returns:
        (documents, 2) int64.
    """
    documents = (document for _, document in verdicts.living(blocks))
    rows = [(document.size, not document.text.strip()) for document in documents]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def prune_parts(parts: Sequence[PrunedPart], verdicts: Path) -> None:
    """What a task does."""
    opened = Verdicts.open(verdicts)
    for part in parts:
        part.file.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(part.file) as stream:
            np.save(stream, pruned(opened, part.blocks))
