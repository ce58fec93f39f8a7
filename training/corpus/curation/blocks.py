"""Blocks of documents on disk: the unit of work of one worker, and the point from which a killed run resumes.

Each partition of a source (sources/partitions.py) has its own blocks.

A block is three files, each written beside its place and renamed. The last one marks the block as complete.

    00012.jsonl    the documents that passed every rule: [id, group, text] a line
    00012.npz      arrays with an entry for each of them, such as their sizes and hashes
    00012.json     how many were read, and what became of the others
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.common.files import open_whole
from training.corpus.sources import Document

BLOCK_BYTES = 4_000_000  # of text: seconds of work
BLOCK_DOCUMENTS = 10_000


@dataclass(frozen=True)
class Block:
    """A task for a worker.

    Attributes:
        reading: funnel of the records that reading dropped on the way to these documents.
        position: position in the source after the last of them.
        groups: bytes of each group, where the source limits groups.
        source: name of the source in the recipe.
    """

    number: int
    documents: list[Document]
    reading: dict[str, Any]
    position: dict[str, Any]
    groups: dict[str, int]
    source: str


def in_blocks(documents: Iterable[Document], most_bytes: int = BLOCK_BYTES) -> Iterator[list[Document]]:
    """Documents in blocks of limited size, which depend on the documents alone: every reading gives the same."""
    block, size = [], 0
    for document in documents:
        block.append(document)
        size += document.size
        if size >= most_bytes or len(block) >= BLOCK_DOCUMENTS:
            yield block
            block, size = [], 0
    if block:
        yield block


@dataclass(frozen=True)
class StoredBlock:
    """A complete block on disk."""

    folder: Path
    number: int

    def documents(self) -> Iterator[Document]:
        with self.file("jsonl").open("rb") as stream:
            for line in stream:
                yield Document(*json.loads(line))

    def ids(self) -> list[str]:
        """Ids of its documents, without reading their texts."""
        return json.loads(self.array("ids").tobytes())

    def array(self, name: str) -> np.ndarray:
        with np.load(self.file("npz")) as arrays:
            return arrays[name]

    def record(self) -> dict[str, Any]:
        return json.loads(self.file("json").read_bytes())

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.number:05}.{kind}"


class BlockStore:
    """The blocks of a partition of a source.

    Args:
        folder: for these blocks alone; created if it does not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, number: int) -> bool:
        return self.block(number).file("json").is_file()

    def __len__(self) -> int:
        """The number of blocks before the first missing one."""
        number = 0
        while number in self:
            number += 1
        return number

    def block(self, number: int) -> StoredBlock:
        return StoredBlock(self.folder, number)

    def blocks(self) -> list[StoredBlock]:
        """All valid blocks of a finished partition."""
        return [self.block(number) for number in range(self.end["blocks"])]

    def write(
        self, number: int, documents: list[Document], arrays: dict[str, np.ndarray], record: dict[str, Any]
    ) -> None:
        block = self.block(number)
        ids = np.frombuffer(json.dumps([document.id for document in documents]).encode(), np.uint8)
        lines = (json.dumps([document.id, document.group, document.text]) + "\n" for document in documents)
        # `shared`: a task that was taken for dead and its successor may write the same block.
        with open_whole(block.file("jsonl"), shared=True) as stream:
            stream.writelines(line.encode() for line in lines)
        with open_whole(block.file("npz"), shared=True) as stream:
            np.savez(stream, ids=ids, **arrays)
        with open_whole(block.file("json"), shared=True) as stream:
            stream.write(json.dumps(record).encode())

    def finish(self, blocks: int, record: dict[str, Any]) -> None:
        """End the partition: the first `blocks` count, and any others are deleted."""
        for file in self.folder.iterdir():
            if int(file.name.split(".")[0]) >= blocks:
                file.unlink(missing_ok=True)  # a worker that was ahead may be deleting it too
        with open_whole(self._end, shared=True) as stream:
            stream.write(json.dumps({"blocks": blocks} | record).encode())

    @property
    def end(self) -> dict[str, Any] | None:
        """The record that `finish` wrote; None before that."""
        return json.loads(self._end.read_bytes()) if self._end.is_file() else None

    @property
    def _end(self) -> Path:
        return self.folder.with_suffix(".json")
