"""Documents on disk in blocks: what one worker takes at a time, and what a killed run goes on from.

A block is three files, each written beside and renamed. The last one says that the block is complete.

    00012.jsonl    the documents that passed every rule: [id, group, text] a line
    00012.npz      arrays with a row for each of them, such as their sizes and hashes
    00012.json     how many were read, and what became of the others
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from training.data.sources import Document

BLOCK_BYTES = 4_000_000  # of text: seconds of work
BLOCK_DOCUMENTS = 10_000


@dataclass(frozen=True)
class Block:
    """A task for a worker.

    Attributes:
        reading: the funnel of what the source dropped on the way to these documents.
        position: in the source, after the last of them.
        source: its name in the recipe.
    """

    number: int
    documents: list[Document]
    reading: dict[str, Any]
    position: dict[str, Any]
    source: str


def in_blocks(documents: Iterable[Document], most_bytes: int = BLOCK_BYTES) -> Iterator[list[Document]]:
    """Cut by the documents alone, so that the blocks are the same however often the source is read."""
    block, size = [], 0
    for document in documents:
        block.append(document)
        size += document.size
        if size >= most_bytes or len(block) >= BLOCK_DOCUMENTS:
            yield block
            block, size = [], 0
    if block:
        yield block


class BlockStore:
    """The blocks of one source.

    Args:
        folder: of their own; made if it does not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, number: int) -> bool:
        return self._file(number, "json").is_file()

    def __len__(self) -> int:
        """Blocks before the first that is missing."""
        number = 0
        while number in self:
            number += 1
        return number

    def write(
        self, number: int, documents: Iterable[Document], arrays: dict[str, np.ndarray], record: dict[str, Any]
    ) -> None:
        lines = (json.dumps([document.id, document.group, document.text]) + "\n" for document in documents)
        _write(self._file(number, "jsonl"), lambda stream: stream.writelines(line.encode() for line in lines))
        _write(self._file(number, "npz"), lambda stream: np.savez(stream, **arrays))
        _write(self._file(number, "json"), lambda stream: stream.write(json.dumps(record).encode()))

    def documents(self, number: int) -> Iterator[Document]:
        with self._file(number, "jsonl").open("rb") as stream:
            for line in stream:
                yield Document(*json.loads(line))

    def array(self, number: int, name: str) -> np.ndarray:
        with np.load(self._file(number, "npz")) as arrays:
            return arrays[name]

    def record(self, number: int) -> dict[str, Any]:
        return json.loads(self._file(number, "json").read_bytes())

    def finish(self, blocks: int, record: dict[str, Any]) -> None:
        """The source has been read as far as it will be: `blocks` count, and any others are forgotten."""
        for file in self.folder.iterdir():
            if int(file.name.split(".")[0]) >= blocks:
                file.unlink(missing_ok=True)  # a worker that was ahead may be at it
        _write(self._end, lambda stream: stream.write(json.dumps({"blocks": blocks} | record).encode()))

    @property
    def end(self) -> dict[str, Any] | None:
        """What `finish` noted."""
        return json.loads(self._end.read_bytes()) if self._end.is_file() else None

    @property
    def _end(self) -> Path:
        return self.folder.with_suffix(".json")

    def _file(self, number: int, kind: str) -> Path:
        return self.folder / f"{number:05}.{kind}"


def _write(file: Path, fill: Callable[[BinaryIO], Any]) -> None:
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        fill(stream)
    temporary.replace(file)
