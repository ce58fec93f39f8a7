"""What became of the documents that passed the rules, and so which text of each goes into which split."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.corpus.curation.blocks import StoredBlock
from training.corpus.curation.splitting import SPLITS, Split
from training.corpus.dedup.lines import RepeatedLines
from training.corpus.sources import Document

TRAIN, VALIDATION, DROPPED = range(3)


class PlacedBlock(NamedTuple):
    """A block, and the place of its first document among those of all sources."""

    first: int
    passed: int
    block: StoredBlock


@dataclass
class Verdicts:
    """
    Attributes:
        fates: (documents,) TRAIN, VALIDATION or DROPPED, by place.
        cuts: bytes of the documents that a limit falls in, by place.
        halved: the place of the document that both splits share, and its bytes in train.
        lines: that are left out of all documents but one.
    """

    fates: np.ndarray
    cuts: dict[int, int]
    halved: tuple[int, int] | None = None
    lines: RepeatedLines | None = None

    def documents(self, blocks: Iterable[PlacedBlock], split: Split) -> Iterator[Document]:
        """Those of a split, as they go into it."""
        number = SPLITS.index(split)
        for place, document in self.living(blocks):
            if self.halved and place == self.halved[0]:
                yield self.half(document, split)
            elif self.fates[place] == number:
                yield document

    def living(self, blocks: Iterable[PlacedBlock]) -> Iterator[tuple[int, Document]]:
        """Documents that have not been dropped, with their places, within the limits and without repeated lines."""
        for first, passed, block in blocks:
            if (self.fates[first : first + passed] == DROPPED).all():
                continue
            for place, document in enumerate(block.documents(), start=first):
                if self.fates[place] != DROPPED:
                    yield place, self.trimmed(place, document)

    def trimmed(self, place: int, document: Document) -> Document:
        if place in self.cuts:
            document = replace(document, text=document.text.encode()[: self.cuts[place]].decode())
        if self.lines:
            document = replace(document, text=self.lines.prune(document.text, place))
        return document

    def half(self, document: Document, split: Split) -> Document:
        """What a split has of the document that both share."""
        text, cut = document.text.encode(), self.halved[1]
        return replace(document, text=(text[:cut] if split == "train" else text[cut:]).decode())

    def save(self, folder: Path) -> None:
        """For other processes, which `open` it."""
        folder.mkdir(exist_ok=True)
        np.save(folder / "fates.npy", self.fates)
        if self.lines:
            np.save(folder / "lines.npy", self.lines.lines)
            np.save(folder / "firsts.npy", self.lines.firsts)
        rest = {
            "cuts": list(self.cuts.items()),
            "halved": self.halved,
            "min_characters": self.lines and self.lines.min_characters,
        }
        (folder / "verdicts.json").write_text(json.dumps(rest))

    @classmethod
    def open(cls, folder: Path) -> "Verdicts":
        """What was saved, with the arrays mapped into memory."""
        rest = json.loads((folder / "verdicts.json").read_text())
        lines = None
        if rest["min_characters"] is not None:
            arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("lines", "firsts"))
            lines = RepeatedLines(*arrays, rest["min_characters"])
        fates = np.load(folder / "fates.npy", mmap_mode="r")
        return cls(fates, dict(rest["cuts"]), rest["halved"] and tuple(rest["halved"]), lines)
