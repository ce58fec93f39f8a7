"""The pass over the sources: read in blocks, which workers clean and judge and leave on disk."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from training.common.progress import progress_bar
from training.corpus.curation.blocks import Block, BlockStore, in_blocks
from training.corpus.curation.config import DataConfig
from training.corpus.curation.document_pipeline import Steps, curate_block
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.source_limits import Limits
from training.corpus.execution.workers import Workers
from training.corpus.sources import Part, Position, SourceConfig, SourceReader, check_parts, split_source

STORES = "blocks"  # below the folder to work in


@dataclass(frozen=True)
class SourcePart:
    """A part of a source of a recipe.

    Attributes:
        name: of the source, and `key`, where it stands in the recipe.
        folder: of its blocks.
    """

    name: str
    key: str
    source: SourceConfig
    part: Part
    folder: Path

    @cached_property
    def store(self) -> BlockStore:
        return BlockStore(self.folder)


def source_parts(config: DataConfig, folder: Path) -> dict[str, list[SourcePart]]:
    """The parts of every source.

    Args:
        folder: to work in.

    Raises:
        UserError: there is nothing to read.
    """
    return {
        name: [
            SourcePart(name, key, source, part, folder / STORES / (name or "text") / f"{part.number:05}")
            for part in split_source(source, key)
        ]
        for name, source in config.named_sources.items()
        for key in [config.key_of(name)]
    }


def check_sources(parts: dict[str, list[SourcePart]]) -> None:
    """Refuse sources that were read to their ends and of which too much is broken.

    Raises:
        UserError: it names the source and its share.
    """
    for of_source in parts.values():
        positions = [Position(**end["position"]) for part in of_source if (end := part.store.end)["position"]]
        first = of_source[0]
        check_parts(positions, first.part.of, first.source, first.key)


def fill_alone(parts: Sequence[SourcePart], config: DataConfig) -> None:
    """`fill` by this process alone."""
    with Workers(1, Steps, config) as workers:
        fill(parts, workers)


def fill(parts: Sequence[SourcePart], workers: Workers) -> None:
    """Read parts to their ends or their limits. Blocks that an interrupted run completed are not made again, nor is
    what is before the first that is missing read again.

    Args:
        workers: their state is `steps.Steps`.

    Raises:
        UserError: see `SourceReader`.
    """
    begun: deque[_Filling] = deque()

    def tasks() -> Iterator[tuple[BlockStore, Block]]:
        for part in parts:
            if not part.store.end:
                begun.append(_Filling(part))
                yield from ((part.store, block) for block in begun[-1].blocks())

    names = list(dict.fromkeys(part.name or "text" for part in parts))
    total = parts[0].source.max_bytes if len(parts) == 1 else None
    with progress_bar(total=total, desc=f"curating {', '.join(names)}", unit="B", unit_scale=True) as bar:
        for record in workers.map(curate_block, tasks()):
            while not begun[0].waiting:  # what comes back is in the order of what was handed out
                begun.popleft().finish()
            begun[0].take()
            bar.update(record["funnel"]["kept"]["bytes"])
        for filling in begun:
            filling.finish()


class _Filling:
    """A part that is being read.

    Attributes:
        waiting: blocks that were handed out and have not come back.
    """

    def __init__(self, part: SourcePart):
        self.name, self.store, self.limits = part.name, part.store, Limits(part.source)
        self.waiting = self.taken = 0
        done = len(self.store)
        start = Position(**self.store.block(done - 1).record()["position"]) if done else Position()
        self.reading = Funnel(step="reading")
        self.reader = SourceReader(part.source, part.name, self.reading, start, part.key, part.part)
        while self.taken < done and not self.limits.reached:
            self._take()

    def blocks(self) -> Iterator[Block]:
        documents, number = in_blocks(self.reader), self.taken
        while not self.limits.reached and (block := next(documents, None)):
            self.waiting += 1
            yield Block(number, block, self.reading.take(), asdict(self.reader.position), self.name)
            number += 1

    def take(self) -> None:
        """The next block has come back."""
        self.waiting -= 1
        if not self.limits.reached:
            self._take()

    def _take(self) -> None:
        self.limits.add(self.store.block(self.taken).array("sizes"))
        self.taken += 1

    def finish(self) -> None:
        # What was read beyond the limit, because the workers were ahead of it, does not count.
        reached = self.limits.reached
        end = {
            "documents": self.limits.documents,
            "cut": self.limits.cut,
            "reading": {} if reached else self.reading.take(),
            "position": None if reached else asdict(self.reader.position),
        }
        self.store.finish(self.taken, end)
