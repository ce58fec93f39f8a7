"""Line deduplication: the sizes of documents without the lines that earlier documents keep."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.common.files import open_whole
from training.corpus.curation.selection import PlacedBlock, Selection


@dataclass(frozen=True)
class DedupedPartition:
    """The documents of a partition of a source, and the file for their `sizes_after_line_dedup`."""

    blocks: list[PlacedBlock]
    file: Path


def sizes_after_line_dedup(selection: Selection, blocks: Iterable[PlacedBlock]) -> np.ndarray:
    """Bytes left of each document that is not dropped, and whether only whitespace is left.

    Returns:
        (documents, 2) int64.
    """
    documents = (document for _, document in selection.kept(blocks))
    sizes = [(document.size, not document.text.strip()) for document in documents]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def measure_partitions(partitions: Sequence[DedupedPartition], selection: Path) -> None:
    """The work of one task: write the sizes of some partitions."""
    opened = Selection.open(selection)
    for partition in partitions:
        partition.file.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(partition.file) as stream:
            np.save(stream, sizes_after_line_dedup(opened, partition.blocks))
