"""The corpus: documents of both splits, streamed from blocks, and the counts of every document read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training.common.errors import UserError
from training.corpus.curation.blocks import StoredBlock
from training.corpus.curation.config import DataConfig, Unit
from training.corpus.curation.document_pipeline import SAMPLE_CHARACTERS, SAMPLES
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.selection import DROPPED, TRAIN, VALIDATION, PlacedBlock, Selection
from training.corpus.curation.splitting import SPLITS, Split
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.sources import Document, draw

FAR = 0.25  # of the requested share of validation text: a share further from it is reported


class Corpus:
    """The documents that passed the rules, by *place*: their number among those of all sources, in order.

    `Curation.run` makes one.

    Attributes:
        folder: holds the blocks; the corpus streams from there.
        blocks: by source and partition.
        ranges: places of the documents of each source.
        sizes: (documents,) bytes of the text that is left of each.
        beyond_limits: places of documents that a block holds beyond the limits of its source, ascending.
        selection: the split of each.
        funnel: what became of every document read.
        copies: by kind of duplicate (exact, near): (kept documents with copies,) how many copies each had.
        contaminated: which document met which evaluation item, and the words that they share.
        items: how many evaluation items were `searched`, and how many were `too short` to search for.
        decontaminators: of the items searched so far.
        split_by: the unit of the split.
    """

    def __init__(self, config: DataConfig, folder: Path, blocks: dict[str, list[list[PlacedBlock]]], funnel: Funnel):
        self.config, self.folder, self.blocks, self.funnel = config, folder, blocks, funnel
        self.copies: dict[str, np.ndarray] = {}
        self.contaminated: list[dict[str, str]] = []
        self.items: Counter[str] = Counter()
        self.decontaminators: list[Decontaminator] = []
        self.split_by: Unit = config.unit or "document"
        self.ranges: dict[str, range] = {}
        first = 0
        for source, partitions in blocks.items():
            count = sum(block.passed for placed in partitions for block in placed)
            self.ranges[source] = range(first, first + count)
            first += count
        self.beyond_limits = np.empty(0, dtype=np.int64)
        self.selection = Selection(np.full(first, TRAIN, dtype=np.uint8), {})
        self.sizes = self.column("sizes") if first else np.empty(0, dtype=np.int64)
        self._explanations: dict[str, dict[int, str]] = {}  # by reason and place, for the first documents dropped

    # Read by later stages.

    def documents(self, split: Split, source: str | None = None) -> Iterator[Document]:
        """Documents of a split, of one source or of all of them in their order."""
        return self.selection.documents(self.placed(source), split)

    def size(self, split: Split, source: str | None = None) -> int:
        """Bytes of the text of a split."""
        places = self.ranges[source] if source else range(len(self.sizes))
        here = slice(places.start, places.stop)
        size = int(self.sizes[here][self.selection.split_of[here] == SPLITS.index(split)].sum())
        held_out = sum(int(self.sizes[at]) - cut for at, cut in self.selection.shared.items() if at in places)
        return size + (held_out if split == "validation" else -held_out)

    @property
    def ends(self) -> int:
        """The number of documents that are too long to be held out whole, so that their ends alone are."""
        return len(self.selection.shared) if self.split_by != "position" else 0

    def sample(self, count: int, seed: int) -> list[Document]:
        """Training documents, drawn by the seed."""
        train = (
            (identity, place)
            for first, _, block in self.placed()
            for place, identity in enumerate(block.ids(), start=first)
            if self.selection.split_of[place] == TRAIN
        )
        places = draw(train, count, seed)
        found = {place: self.selection.trimmed(place, document) for place, document in self.at(np.sort(places))}
        return [self.selection.in_train(place, found[place]) for place in places]

    def split_notes(self) -> list[str]:
        """Lines for the terminal where the validation text is not what was asked for, or comes from few documents."""
        split_of, unit, ends = self.selection.split_of, self.split_by, self.ends
        requested, share = self.config.validation_fraction, self.size("validation") / int(self.lengths().sum())
        kept, held_out = (split_of != DROPPED), (split_of == VALIDATION)
        if unit == "package":
            groups = self.column("package")
            of, found = (len(np.unique(groups[places])) for places in (kept, held_out))
        else:
            of, found = int(kept.sum()), int(held_out.sum()) + len(self.selection.shared)
        notes = []
        if ends:
            long = "the end of a long document" if ends == 1 else f"the ends of {ends:,} long documents"
            whole = f", and {found - ends:,} more, whole" if found > ends else ""
            notes.append(f"validation: {long}{whole}; for whole documents alone, set 'data.split_by': document")
        if abs(share - requested) > FAR * requested:
            remedy = "set 'data.split_by': position to hold out the end of the text"
            if unit == "position":
                cause = "the text is cut between lines or characters"
                remedy = "change 'data.validation_fraction' to move the cut"
            elif ends:
                cause = "documents are held out whole, or cut between paragraphs or lines"
            else:
                cause = f"each {unit} is held out whole"
            notes.append(
                f"validation: {share:.1%} of the text, not the {requested:.1%} of 'data.validation_fraction', because "
                f"{cause}; {remedy}"
            )
        if found == 1 < of:
            remedy = "set 'data.split_by': document" if unit == "position" else "raise 'data.validation_fraction'"
            what = "document" if unit == "position" else unit
            notes.append(f"validation: from 1 of {of:,} {what}s, which may be unlike the others; {remedy}")
        return notes

    def lengths(self) -> np.ndarray:
        """Bytes of each document kept.  # (documents,)"""
        return self.sizes[self.selection.split_of != DROPPED]

    def counts(self, source: str) -> dict[str, int]:
        """Documents and bytes kept of a source."""
        here = slice(self.ranges[source].start, self.ranges[source].stop)
        sizes = self.sizes[here][self.selection.split_of[here] != DROPPED]
        return {"documents": len(sizes), "bytes": int(sizes.sum())}

    def samples(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Documents that passed the rules and were dropped later, with their reasons; in the form of the samples of
        `document_pipeline.process_block`."""
        for reason, explanations in self._explanations.items():
            for place, document in self.at(np.array(sorted(explanations), dtype=np.int64)):
                # A document that holds an evaluation item must not be published beside the model's text.
                text = "" if reason == "contaminated" else document.text[:SAMPLE_CHARACTERS]
                yield reason, {"id": document.id, "why": explanations[place], "text": text}

    def encodings(self) -> Counter[str]:
        """Numbers of documents read from encodings other than UTF-8, by encoding."""
        found = Counter()
        for of_source in self.blocks.values():
            for blocks in filter(None, of_source):
                found.update(blocks[-1].block.record()["position"]["encodings"])  # up to there
        return found

    def records(self) -> Iterator[dict[str, Any]]:
        """Records of all blocks, in order; see `document_pipeline.process_block`."""
        for _, _, block in self.placed():
            yield block.record()

    def keep_out(self, decontaminator: Decontaminator) -> None:
        """Drop training documents that hold an item. In a split by position, the document that both splits share stays.

        Raises:
            UserError: nothing is left to train on.
        """
        selection = self.selection
        stays = selection.shared if self.split_by == "position" else {}
        train = (
            (place, selection.in_train(place, document))
            for place, document in selection.kept(self.placed())
            if selection.split_of[place] == TRAIN and place not in stays
        )
        self.drop_contaminated(decontaminator, *decontaminator.meet(train))
        self.count_splits()

    def groups(self, split: Split) -> set[int]:
        """The `splitting.split_key` of each group with documents in a split."""
        return set(self.column("package")[self.selection.split_of == SPLITS.index(split)].tolist())

    def ids_within_limits(self, source: str) -> set[str]:
        """Ids of the documents of a source that passed the rules, within its limits."""
        beyond, ids = set(self.beyond_limits.tolist()), set()
        for first, _, block in self.placed(source):
            ids.update(identity for place, identity in enumerate(block.ids(), start=first) if place not in beyond)
        return ids

    # Called by the steps of `Curation`.

    def drop(self, places: np.ndarray, reason: str, step: str, explanations: list[str]) -> None:
        """Drop documents; `explanations` give the reasons for the first ones."""
        first = {place: f"{reason}: {why}" for place, why in zip(places[:SAMPLES].tolist(), explanations)}
        self._explanations[reason] = self._explanations.get(reason, {}) | first
        self.selection.split_of[places] = DROPPED
        for place in self.selection.shared.keys() & set(places.tolist()):
            del self.selection.shared[place]
        self.funnel.drop_kept(reason, int(self.sizes[places].sum()), step, len(places))

    def drop_contaminated(self, decontaminator: Decontaminator, owners: np.ndarray, matches: np.ndarray) -> None:
        """Drop the documents that hold an item, among those with runs of words of items (`Decontaminator.meet`)."""
        self.items.update(decontaminator.counts)
        found, decontaminator = decontaminator.contaminated(owners, matches, self.config.decontamination.max_documents)
        self.decontaminators.append(decontaminator)
        explanations = {}
        for place, document in self.at(found):
            # Searched in the kept text: a limit may have cut off the item.
            text = self.selection.in_train(place, self.selection.trimmed(place, document)).text
            for item, words in decontaminator.hits(text):
                explanations.setdefault(place, f"words of {item}")
                self.contaminated.append({"document": document.id, "item": item, "words": words})
        places = np.array(list(explanations), dtype=np.int64)
        self.drop(places, "contaminated", "decontamination", list(explanations.values()))

    def count_splits(self) -> None:
        """Note the documents and bytes of both splits in the funnel.

        Raises:
            UserError: a split is empty.
        """
        for number, split in enumerate(SPLITS):
            documents = int((self.selection.split_of == number).sum())
            documents += len(self.selection.shared) if number == VALIDATION else 0
            self.check_some(documents, split)
            self.funnel.splits[split] = {"documents": documents, "bytes": self.size(split)}

    def check_some(self, documents: int, split: Split) -> None:
        """Check that every split has documents. Raises UserError."""
        if not documents:
            reasons = self.funnel.reasons() or "it is empty"
            raise UserError(f"{self.config.where}: no text left for {split} after cleaning ({reasons})")

    def kept_places(self) -> np.ndarray:
        """Places of the documents that are not dropped.  # (kept,)"""
        return np.flatnonzero(self.selection.split_of != DROPPED)

    def placed(self, source: str | None = None) -> Iterator[PlacedBlock]:
        """Blocks of one source or of all of them, in order."""
        for name in [source] if source else self.blocks:
            for of_partition in self.blocks[name]:
                yield from of_partition

    def column(self, name: str) -> np.ndarray:
        """An array of all blocks of all sources, in order.  # (documents, ...)"""
        return np.concatenate([block.array(name) for _, _, block in self.placed()])

    def ids(self, places: np.ndarray) -> dict[int, str]:
        """Ids of the documents at these places (ascending), by place."""
        ids = {}
        for first, block, here in self._holding(places):
            of_block = block.ids()
            ids.update((place, of_block[place - first]) for place in here)
        return ids

    def at(self, places: np.ndarray) -> Iterator[tuple[int, Document]]:
        """Documents at these places (ascending), as they passed the rules, with their places."""
        for first, block, here in self._holding(places):
            sought = set(here)
            documents = enumerate(block.documents(), start=first)
            yield from ((place, document) for place, document in documents if place in sought)

    def _holding(self, places: np.ndarray) -> Iterator[tuple[int, StoredBlock, list[int]]]:
        """Blocks with documents at these places (ascending): each block's first place, the block, the places in it."""
        for first, passed, block in self.placed():
            if here := places[slice(*np.searchsorted(places, (first, first + passed)))].tolist():
                yield first, block, here
