"""The filter pass: sources are read in blocks, which workers clean, filter and leave on disk."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from training.common.progress import progress_bar
from training.corpus.curation.blocks import Block, BlockStore, in_blocks
from training.corpus.curation.config import DataConfig
from training.corpus.curation.document_pipeline import DocumentPipeline, process_block
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.source_limits import GroupLimit, SourceLimits
from training.corpus.execution.workers import Workers
from training.corpus.sources import (
    Document,
    Partition,
    Position,
    SourceConfig,
    SourceReader,
    check_partitions,
    split_source,
)

STORES = "blocks"  # below the folder to work in


@dataclass(frozen=True)
class SourcePartition:
    """A partition of a source of a recipe.

    Attributes:
        name, key: the source's name and its key in the recipe.
        folder: for the blocks of the partition.
    """

    name: str
    key: str
    source: SourceConfig
    partition: Partition
    folder: Path

    @cached_property
    def store(self) -> BlockStore:
        return BlockStore(self.folder)


def source_partitions(config: DataConfig, folder: Path) -> dict[str, list[SourcePartition]]:
    """The partitions of every source, by its name.

    Args:
        folder: working folder.

    Raises:
        UserError: there is nothing to read.
    """
    return {
        name: [
            SourcePartition(name, key, source, piece, folder / STORES / (name or "text") / f"{piece.number:05}")
            for piece in split_source(source, key)
        ]
        for name, source in config.named_sources.items()
        for key in [config.key_of(name)]
    }


def check_sources(partitions: dict[str, list[SourcePartition]]) -> None:
    """Check that not too many records of the sources read to their ends are broken.

    Raises:
        UserError: names the source and its share of broken records.
    """
    for of_source in partitions.values():
        ends = [partition.store.end for partition in of_source]
        positions = [Position(**end["position"]) for end in ends if end["position"]]
        first = of_source[0]
        check_partitions(positions, first.partition.of, first.source, first.key)


def run_filter_pass_alone(partitions: Sequence[SourcePartition], config: DataConfig) -> None:
    """`run_filter_pass` in this process alone."""
    with Workers(1, DocumentPipeline, config) as workers:
        run_filter_pass(partitions, workers, config.seed)


def run_filter_pass(partitions: Sequence[SourcePartition], workers: Workers, seed: int) -> None:
    """Read partitions to their ends or their limits. Blocks that an interrupted run completed are kept, and
    documents before the first missing block are not read again.

    Args:
        workers: their state is a `DocumentPipeline`.
        seed: of the order of installed Python files.

    Raises:
        UserError: see `SourceReader`.
    """
    begun: deque[_PartitionInProgress] = deque()

    def tasks() -> Iterator[tuple[BlockStore, Block]]:
        for partition in partitions:
            if not partition.store.end:
                begun.append(_PartitionInProgress(partition, seed))
                yield from ((partition.store, block) for block in begun[-1].blocks())

    names = list(dict.fromkeys(partition.name or "text" for partition in partitions))
    total = partitions[0].source.max_bytes if len(partitions) == 1 else None
    with progress_bar(total=total, desc=f"filtering {', '.join(names)}", unit="B", unit_scale=True) as bar:
        for record in workers.map(process_block, tasks()):
            while not begun[0].waiting:  # blocks come back in the order in which they were handed out
                begun.popleft().finish()
            begun[0].take()
            bar.update(record["funnel"]["kept"]["bytes"])
        for in_progress in begun:
            in_progress.finish()


class _PartitionInProgress:
    """A partition that is being read.

    Attributes:
        waiting: blocks that were handed out and have not come back.
        taken: blocks that have come back and count.
    """

    def __init__(self, partition: SourcePartition, seed: int):
        self.name, self.store = partition.name, partition.store
        self.limits, self.group_limit = SourceLimits(partition.source), GroupLimit(partition.source)
        self.waiting = self.taken = 0
        done = len(self.store)
        start = Position(**self.store.block(done - 1).record()["position"]) if done else Position()
        self.reading = Funnel(step="reading")
        self.reader = SourceReader(
            partition.source, partition.name, self.reading, start, partition.key, partition.partition, seed
        )
        while self.taken < done and not self.limits.reached:
            self.group_limit.restore(self.store.block(self.taken).record()["groups"])
            self._take()

    def blocks(self) -> Iterator[Block]:
        """The blocks still to be made, until the source's limits are reached."""
        documents, number = in_blocks(self._admitted()), self.taken
        while not self.limits.reached and (block := next(documents, None)):
            self.waiting += 1
            position, groups = asdict(self.reader.position), self.group_limit.take()
            yield Block(number, block, self.reading.take(), position, groups, self.name)
            number += 1

    def _admitted(self) -> Iterator[Document]:
        for document in self.reader:
            if self.group_limit.admits(document):
                yield document
            else:
                self.reading.drop("group over its share", document.size, "limit")

    def take(self) -> None:
        """Count the block that has come back."""
        self.waiting -= 1
        if not self.limits.reached:
            self._take()

    def _take(self) -> None:
        self.limits.add(self.store.block(self.taken).array("sizes"))
        self.taken += 1

    def finish(self) -> None:
        """Write the end of the partition. Blocks read beyond the limit, by workers that were ahead, do not count."""
        reached = self.limits.reached
        end = {
            "documents": self.limits.documents,
            "cut": self.limits.cut,
            "reading": {} if reached else self.reading.take(),
            "position": None if reached else asdict(self.reader.position),
        }
        self.store.finish(self.taken, end)
