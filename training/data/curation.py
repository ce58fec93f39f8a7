"""From sources to clean documents, with memory for some hundred bytes of each.

1. The first pass (first_pass.py) leaves the documents that pass the rules on disk, in blocks, with their hashes.
2. On the hashes alone, those of all sources together: what holds items of an evaluation set goes, and all
   duplicates but the first.
3. Train and validation are told apart, and `Curation.documents` streams either.

All is in the order of the sources and their blocks, so the number of workers and interruptions change nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from training.data.blocks import BlockStore
from training.data.config import DataConfig
from training.data.dedup.exact import first_of_each
from training.data.dedup.lines import RepeatedLines, repeated_lines
from training.data.dedup.neighbours import near_duplicates
from training.data.first_pass import fill
from training.data.funnel import Funnel
from training.data.sources import Document
from training.data.splitting import SPLITS, Split, hold_out, line_end, whole_characters
from training.data.steps import SAMPLE_CHARACTERS, SAMPLES, Steps
from training.data.workers import Workers
from training.errors import UserError

NEAR_DUPLICATES, CONTAMINATED = "near_duplicates.jsonl", "contaminated.jsonl"
TRAIN, VALIDATION, DROPPED = range(3)  # what becomes of a document that passed the rules


class Curation:
    """The clean documents of all sources of a recipe.

    Args:
        folder: for the blocks; what an interrupted run left there is used.
        workers: processes.

    Attributes:
        funnel: what became of every document read.
        fates: (documents,) TRAIN, VALIDATION or DROPPED, of those that passed the rules.
        sizes: (documents,) bytes that they have in the end.
        copies: by kind of duplicate (exact, near): (kept documents with copies,) how many each had.

    Raises:
        UserError: nothing to read, nothing left, or nothing to hold out.
    """

    def __init__(self, config: DataConfig, folder: Path, workers: int):
        self.config, self.folder = config, folder
        self.stores = {name: BlockStore(folder / "blocks" / (name or "text")) for name in config.named_sources}
        with Workers(workers, Steps, config) as pool:
            for name, source in config.named_sources.items():
                fill(self.stores[name], name, source, config.key_of(name), pool)
        self.ranges: dict[str, range] = {}  # the places of each source's documents
        self.cuts: dict[int, int] = {}  # bytes of the documents that a limit falls in
        self.repeated_lines: RepeatedLines | None = None
        self.copies: dict[str, np.ndarray] = {}
        self._whys: dict[str, dict[int, str]] = {}  # by reason, what condemned the first documents, by place
        self.halved: tuple[int, int] | None = None  # the document that both splits share, and its bytes in train
        self._gather()
        if config.dedup.exact:
            self._drop_exact_duplicates()
        if config.dedup.near:
            self._drop_near_duplicates()
        if config.decontamination.evaluation:
            self._drop_contaminated()
        if config.dedup.lines:
            self._drop_repeated_lines()
        self._split()

    def documents(self, split: Split, source: str | None = None) -> Iterator[Document]:
        """Of one source, or of all of them in their order."""
        number = SPLITS.index(split)
        for place, document in self._stored(source):
            if self.halved and place == self.halved[0]:
                cut = self.halved[1]
                text = document.text.encode()
                yield replace(document, text=(text[cut:] if number else text[:cut]).decode())
            elif self.fates[place] == number:
                yield document

    everything = documents  # there is no more than that

    def size(self, split: Split, source: str | None = None) -> int:
        """Bytes of the text of a split."""
        places = self.ranges[source] if source else range(len(self.fates))
        here = slice(places.start, places.stop)
        size = int(self.sizes[here][self.fates[here] == SPLITS.index(split)].sum())
        if self.halved and self.halved[0] in places:
            place, cut = self.halved
            moved = int(self.sizes[place]) - cut
            size += moved if split == "validation" else -moved
        return size

    def lengths(self) -> np.ndarray:
        """Bytes of each document kept.  # (documents,)"""
        return self.sizes[self.fates != DROPPED]

    def counts(self, source: str) -> dict[str, int]:
        """What was kept of a source."""
        here = slice(self.ranges[source].start, self.ranges[source].stop)
        sizes = self.sizes[here][self.fates[here] != DROPPED]
        return {"documents": len(sizes), "bytes": int(sizes.sum())}

    def samples(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Of the documents that passed the rules and were dropped later, by reason; as in `steps.curate_block`."""
        for reason, whys in self._whys.items():
            for place, document in self._at(np.array(sorted(whys), dtype=np.int64)):
                # What holds an item of an evaluation must not be published beside the model's text.
                text = "" if reason == "contaminated" else document.text[:SAMPLE_CHARACTERS]
                yield reason, {"id": document.id, "why": whys[place], "text": text}

    def records(self) -> Iterator[dict[str, Any]]:
        """Of all blocks, in order; see `steps.curate_block`."""
        for store in self.stores.values():
            for number in range(store.end["blocks"]):
                yield store.record(number)

    def _stored(self, source: str | None = None) -> Iterator[tuple[int, Document]]:
        """Documents that have not been dropped, with their places, within the limits and without repeated lines."""
        for name in [source] if source else self.stores:
            place, store = self.ranges[name].start, self.stores[name]
            for number in range(store.end["blocks"]):
                for index, document in enumerate(store.documents(number), start=place):
                    if self.fates[index] == DROPPED:
                        continue
                    if index in self.cuts:
                        document = replace(document, text=document.text.encode()[: self.cuts[index]].decode())
                    if self.repeated_lines:
                        document = replace(document, text=self.repeated_lines.prune(document.text, index))
                    yield index, document
                place += store.record(number)["passed"]

    def _gather(self) -> None:
        """The funnel so far, the sizes, and what lies within the limits of the sources."""
        self.funnel = Funnel()
        for record in self.records():
            self.funnel.add(Funnel(record["funnel"]))
        for store in self.stores.values():
            self.funnel.add(Funnel(store.end["reading"]))
        self._check_some(self.funnel.kept["documents"], "train")
        self.sizes = self._column("sizes")
        self.fates = np.full(len(self.sizes), TRAIN, dtype=np.uint8)
        beyond, place = np.zeros(len(self.sizes), dtype=bool), 0
        for name, store in self.stores.items():
            passed = sum(store.record(number)["passed"] for number in range(store.end["blocks"]))
            self.ranges[name] = range(place, place + passed)
            within = store.end["documents"]
            if store.end["cut"] is not None:
                last = place + within - 1
                text = next(document.text for index, document in self._stored(name) if index == last)
                cut = whole_characters(text, store.end["cut"])
                self.funnel.trim_kept("beyond the limit", int(self.sizes[last]) - cut)
                self.sizes[last] = self.cuts[last] = cut
                within -= cut == 0
            beyond[place + within : place + passed] = True
            place += passed
        places = np.flatnonzero(beyond)
        self._drop(places, "beyond the limit", "limit", ["its source had reached its limit"] * len(places[:SAMPLES]))

    def _drop_exact_duplicates(self) -> None:
        alive = self._alive()
        firsts = first_of_each(self._column("hashes")[alive])
        repeats = firsts != np.arange(len(alive))
        dropped, kept = alive[repeats], alive[firsts[repeats]]
        self.copies["exact"] = np.unique(kept, return_counts=True)[1]
        ids = self._ids(np.unique(kept[:SAMPLES]))
        whys = [f"the text of {_file(ids[place])}" for place in kept[:SAMPLES].tolist()]
        self._drop(dropped, "duplicate", "duplicates", whys)

    def _drop_near_duplicates(self) -> None:
        """They are listed in near_duplicates.jsonl, each with the document that it repeats."""
        minhash, alive = self.config.dedup.minhash, self._alive()
        # On disk: the signatures of ten gigabytes of text are gigabytes themselves.
        file, place = self.folder / "signatures.npy", 0
        signatures = open_memmap(file, "w+", np.uint32, (len(alive), minhash.permutations))
        for store in self.stores.values():
            for number in range(store.end["blocks"]):
                block = store.array(number, "signatures")
                first, last = np.searchsorted(alive, (place, place + len(block)))
                signatures[first:last] = block[alive[first:last] - place]
                place += len(block)
        found = near_duplicates(signatures, minhash)
        dropped, kept = alive[found.dropped], alive[found.kept]
        originals, of_each, self.copies["near"] = np.unique(kept, return_inverse=True, return_counts=True)
        names = [document.id for _, document in self._at(originals)]
        similar = zip(of_each[:SAMPLES], found.jaccard[:SAMPLES], strict=True)
        limit = f"below {minhash.threshold:g}"
        whys = [f"{jaccard:.3f} similar to {_file(names[original])} ({limit})" for original, jaccard in similar]
        self._drop(dropped, "near duplicate", "duplicates", whys)
        with (self.folder / NEAR_DUPLICATES).open("w") as stream:
            for (_, document), original, jaccard in zip(self._at(dropped), of_each, found.jaccard, strict=True):
                pair = {"dropped": document.id, "kept": names[original], "jaccard": round(float(jaccard), 3)}
                stream.write(json.dumps(pair) + "\n")
        file.unlink()

    def _drop_contaminated(self) -> None:
        """They are listed in contaminated.jsonl, each with the items it meets and the words they share."""
        wanted = self.config.decontamination
        decontaminator = wanted.decontaminator()
        counts = self._column("matches_of_each")
        owners = np.repeat(np.arange(len(counts)), counts)
        matches = self._column("matches")
        living = self.fates[owners] != DROPPED
        owners, matches = owners[living], matches[living]
        common = np.bincount(matches, minlength=decontaminator.runs) > wanted.max_documents
        decontaminator = decontaminator.without(common)
        condemned = np.unique(owners[~common[matches]])
        met, whys = set(condemned.tolist()), {}
        with (self.folder / CONTAMINATED).open("w") as stream:
            for place, document in self._stored():
                if place in met:
                    for item, words in decontaminator.hits(document.text):
                        whys.setdefault(place, f"words of {item}")
                        stream.write(json.dumps({"document": document.id, "item": item, "words": words}) + "\n")
        self._drop(condemned, "contaminated", "decontamination", list(whys.values()))

    def _drop_repeated_lines(self) -> None:
        self.repeated_lines = repeated_lines(self._lines(), self.config.dedup.line, self.folder)
        empty = []
        for place, document in self._stored():
            self.funnel.trim_kept("repeated lines", int(self.sizes[place]) - document.size)
            self.sizes[place] = document.size
            if not document.text.strip():
                empty.append(place)
        whys = ["every line stands in many documents"] * len(empty[:SAMPLES])
        self._drop(np.array(empty, dtype=np.int64), "repeated lines only", "duplicates", whys)

    def _lines(self) -> Iterator[np.ndarray]:
        """The line hashes of every document, none of those that have been dropped."""
        fates = iter(self.fates)
        for store in self.stores.values():
            for number in range(store.end["blocks"]):
                ends = np.cumsum(store.array(number, "lines_of_each"))
                for lines in np.split(store.array(number, "lines"), ends)[:-1]:
                    yield lines if next(fates) != DROPPED else lines[:0]

    def _drop(self, places: np.ndarray, reason: str, step: str, whys: list[str]) -> None:
        """Drop documents; `whys` says of the first of them what condemned each."""
        self._whys[reason] = {place: f"{reason}: {why}" for place, why in zip(places[:SAMPLES].tolist(), whys)}
        self.fates[places] = DROPPED
        self.funnel.drop_kept(reason, int(self.sizes[places].sum()), step, len(places))

    def _alive(self) -> np.ndarray:
        return np.flatnonzero(self.fates != DROPPED)

    def _split(self) -> None:
        """Hold out the validation split."""
        alive = self._alive()
        sizes = self.sizes[alive]
        target = self.config.validation_fraction * sizes.sum()
        split_by = self.config.split_by or ("document" if len(alive) > 1 else "position")
        if split_by == "position":
            self._split_by_position(alive, int(sizes.sum() - target))
        else:
            units, members = np.unique(self._column(split_by)[alive], return_inverse=True)
            if len(units) < 2:
                raise UserError(
                    f"'data.split_by': {self.config.where} holds a single {split_by}, so none can be held out for "
                    "validation; set split_by: position"
                )
            held_out = hold_out(units, np.bincount(members, sizes), target)
            self.fates[alive[held_out[members]]] = VALIDATION
        for number, split in enumerate(SPLITS):
            documents = int((self.fates == number).sum()) + (number == VALIDATION and self.halved is not None)
            self._check_some(documents, split)
            self.funnel.splits[split] = {"documents": documents, "bytes": self.size(split)}

    def _split_by_position(self, alive: np.ndarray, target: int) -> None:
        """The first `target` bytes are train, the rest validation; the cut falls on a line's end where there is one."""
        ends = np.cumsum(self.sizes[alive])
        self.fates[alive[ends > target]] = VALIDATION
        index = int(np.searchsorted(ends, target, side="right"))
        place, before = int(alive[index]), int(ends[index] - self.sizes[alive[index]])
        text = next(document.text for stored, document in self._stored() if stored == place)
        cut = line_end(text, target - before)
        if cut:
            self.halved, self.fates[place] = (place, cut), TRAIN

    def _check_some(self, documents: int, split: Split) -> None:
        if not documents:
            reasons = self.funnel.reasons() or "it is empty"
            raise UserError(f"{self.config.where}: no text left for {split} after cleaning ({reasons})")

    def _ids(self, places: np.ndarray) -> dict[int, str]:
        """Of the documents at these places, which rise."""
        return {place: document.id for place, document in self._at(places)}

    def _at(self, places: np.ndarray) -> Iterator[tuple[int, Document]]:
        """The documents at these places, which rise, as they passed the rules."""
        first = 0
        for store in self.stores.values():
            for number in range(store.end["blocks"]):
                passed = store.record(number)["passed"]
                here = set(places[slice(*np.searchsorted(places, (first, first + passed)))].tolist())
                if here:
                    documents = enumerate(store.documents(number), start=first)
                    yield from ((place, document) for place, document in documents if place in here)
                first += passed

    def _column(self, name: str) -> np.ndarray:
        """An array of all blocks of all sources, in order."""
        stores = self.stores.values()
        return np.concatenate([store.array(number, name) for store in stores for number in range(store.end["blocks"])])


def _file(identity: str) -> str:
    """A document's name without the folders, which are the person's own."""
    return identity.rsplit("/", 1)[-1]
