"""Partitions of a source, which can be read at the same time on different machines.

Partitions depend on the files alone, not on the processes that read them. Blocks of documents never reach across two
partitions, so they are the same in every run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from training.corpus.sources.config import SourceConfig
from training.corpus.sources.files import SourceFile, announced_files, is_local

PARTITION_BYTES = 16_000_000  # as stored: seconds of work for one core, half a minute where they are compressed


@dataclass(frozen=True)
class Partition:
    """A partition: neighbouring files of a source.

    Attributes:
        number: among the partitions of its source, from 0.
        files: of the source, in its order; none for a source that is not made of files.
        of: number of files of the whole source.
        size: bytes, as stored.
    """

    number: int
    files: tuple[SourceFile, ...]
    of: int
    size: int


def split_source(config: SourceConfig, key: str) -> list[Partition]:
    """All partitions, in order: runs of files of `PARTITION_BYTES` or a little more. A larger file is one partition.
    Prints which files are left out.

    A source that is not made of files is one partition. So is a source with a limit: where that falls is known only
    when everything before it has been filtered.

    Args:
        key: of the source in the recipe, for error messages.

    Raises:
        UserError: there is nothing to read.
    """
    if not is_local(config.path):
        return [Partition(0, (), 1, 0)]
    files = announced_files(config, key)
    limited = config.max_documents is not None or config.max_bytes is not None
    runs, run, size = [], [], 0
    for file in files:
        run.append(file)
        size += _size(file)
        if size >= PARTITION_BYTES and not limited:
            runs.append((run, size))
            run, size = [], 0
    if run:
        runs.append((run, size))
    return [Partition(number, tuple(run), len(files), size) for number, (run, size) in enumerate(runs)]


def whole(files: Sequence[SourceFile]) -> Partition:
    """The partition that is the whole source."""
    return Partition(0, tuple(files), len(files), 0)


def _size(file: SourceFile) -> int:
    """Bytes of a file; 0 if it was deleted, which its reader reports."""
    return file.path.stat().st_size if file.path.exists() else 0
