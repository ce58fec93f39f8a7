"""The selection: the split of each document that passed the rules, and the part of its text that goes there."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.corpus.curation.blocks import StoredBlock
from training.corpus.curation.splitting import SPLITS, Split
from training.corpus.dedup.lines import RepeatedLines
from training.corpus.sources import Document

TRAIN, VALIDATION, DROPPED = range(3)


class PlacedBlock(NamedTuple):
    """A block, the place of its first document among those of all sources, and its number of documents."""

    first: int
    passed: int
    block: StoredBlock


@dataclass
class Selection:
    """The split of every document.

    Attributes:
        split_of: (documents,) TRAIN, VALIDATION or DROPPED, by place.
        cuts: bytes kept of the documents in which a limit falls, by place.
        shared: bytes in train of the documents that both splits share, by place; the rest of each is validation.
        lines: repeated lines, left out of all documents but the first.
    """

    split_of: np.ndarray
    cuts: dict[int, int]
    shared: dict[int, int] = field(default_factory=dict)
    lines: RepeatedLines | None = None

    def documents(self, blocks: Iterable[PlacedBlock], split: Split) -> Iterator[Document]:
        """The documents of a split, with the text that goes into it."""
        number = SPLITS.index(split)
        for place, document in self.kept(blocks):
            if place in self.shared:
                yield self.piece(place, document, split)
            elif self.split_of[place] == number:
                yield document

    def kept(self, blocks: Iterable[PlacedBlock]) -> Iterator[tuple[int, Document]]:
        """Documents that are not dropped, with their places, cut at the limits and without repeated lines."""
        for first, passed, block in blocks:
            if (self.split_of[first : first + passed] == DROPPED).all():
                continue
            for place, document in enumerate(block.documents(), start=first):
                if self.split_of[place] != DROPPED:
                    yield place, self.trimmed(place, document)

    def trimmed(self, place: int, document: Document) -> Document:
        """The document cut at its limit and without repeated lines."""
        if place in self.cuts:
            document = replace(document, text=document.text.encode()[: self.cuts[place]].decode())
        if self.lines:
            document = replace(document, text=self.lines.prune(document.text, place))
        return document

    def in_train(self, place: int, document: Document) -> Document:
        """The training split's part of a document, trimmed: all of it, unless both splits share it."""
        return self.piece(place, document, "train") if place in self.shared else document

    def piece(self, place: int, document: Document, split: Split) -> Document:
        """A split's piece of a document that both splits share."""
        text, cut = document.text.encode(), self.shared[place]
        return replace(document, text=(text[:cut] if split == "train" else text[cut:]).decode())

    def save(self, folder: Path) -> None:
        """Write the selection for other processes, which `open` it."""
        folder.mkdir(exist_ok=True)
        np.save(folder / "split_of.npy", self.split_of)
        if self.lines:
            np.save(folder / "lines.npy", self.lines.lines)
            np.save(folder / "firsts.npy", self.lines.firsts)
        rest = {
            "cuts": list(self.cuts.items()),
            "shared": list(self.shared.items()),
            "min_characters": self.lines and self.lines.min_characters,
        }
        (folder / "selection.json").write_text(json.dumps(rest), encoding="utf-8")

    @classmethod
    def open(cls, folder: Path) -> "Selection":
        """The selection that `save` wrote, with its arrays mapped into memory."""
        rest = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
        lines = None
        if rest["min_characters"] is not None:
            arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("lines", "firsts"))
            lines = RepeatedLines(*arrays, rest["min_characters"])
        split_of = np.load(folder / "split_of.npy", mmap_mode="r")
        return cls(split_of, dict(rest["cuts"]), dict(rest["shared"]), lines)
