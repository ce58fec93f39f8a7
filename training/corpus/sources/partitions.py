"""Sources in parts that can be read at the same time, on different machines.

What a part is depends on the files alone, neither on how many processes there are nor on which of them reads it: blocks
of documents never reach across two parts, so that they are the same in every run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from training.corpus.sources.config import SourceConfig
from training.corpus.sources.files import SourceFile, is_local, list_files

PARTITION_BYTES = 16_000_000  # as stored: seconds of work for one core, half a minute where they are compressed


@dataclass(frozen=True)
class Partition:
    """Some of a source.

    Attributes:
        number: among the parts of its source, from 0.
        files: of the source, neighbours in its order; none of a source that is not made of files.
        of: how many files the whole source has.
        size: bytes, as stored.
    """

    number: int
    files: tuple[SourceFile, ...]
    of: int
    size: int


def split_source(config: SourceConfig, key: str) -> list[Partition]:
    """All parts, in order: runs of files of `PARTITION_BYTES` or a little more. A larger file is a part of its own.

    What is not made of files is one part, and so is a source with a limit: where that falls is known only when
    everything before has been judged.

    Args:
        key: of the source in the recipe, for error messages.

    Raises:
        UserError: there is nothing to read.
    """
    if not is_local(config.path):
        return [Partition(0, (), 1, 0)]
    files = list_files(config.path, config.split, key)
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
    """A source that is read by one reader."""
    return Partition(0, tuple(files), len(files), 0)


def _size(file: SourceFile) -> int:
    """0 of a file that has vanished: its reader says so."""
    return file.path.stat().st_size if file.path.exists() else 0
