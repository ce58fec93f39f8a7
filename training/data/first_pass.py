"""The pass over a source: read in blocks, which workers clean and judge and leave on disk."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict

from training.data.blocks import Block, BlockStore, in_blocks
from training.data.funnel import Funnel
from training.data.limits import Limits
from training.data.sources import Position, SourceConfig, SourceReader
from training.data.steps import curate_block
from training.data.workers import Workers
from training.engine.progress import progress_bar


def fill(store: BlockStore, name: str, source: SourceConfig, key: str, workers: Workers) -> None:
    """Read a source to its end or its limits. Blocks that an interrupted run completed are not made again, nor is the
    part of the source before the first that is missing read again.

    Args:
        workers: their state is `steps.Steps`.
        key: of the source in the recipe, for error messages.

    Raises:
        UserError: see `SourceReader`.
    """
    if store.end:
        return
    done = [store.record(number) for number in range(len(store))]
    start = Position(**done[-1]["position"]) if done else Position()
    reading, limits = Funnel(step="reading"), Limits(source)
    reader = SourceReader(source, name, reading, start, key)

    def tasks() -> Iterator[tuple[BlockStore, Block]]:
        for number, documents in enumerate(in_blocks(reader), start=len(done)):
            yield store, Block(number, documents, reading.take(), asdict(reader.position), name)

    blocks = 0
    with progress_bar(total=source.max_bytes, desc=f"curating {name or 'text'}", unit="B", unit_scale=True) as bar:
        for record in itertools.chain(done, workers.map(curate_block, tasks())):
            limits.add(store.array(blocks, "sizes"))
            bar.update(record["funnel"]["kept"]["bytes"])
            blocks += 1
            if limits.reached:
                break
    # What was read beyond the limit, because the workers were ahead of it, does not count.
    last = {} if limits.reached else reading.take()
    store.finish(blocks, {"documents": limits.documents, "cut": limits.cut, "reading": last})
