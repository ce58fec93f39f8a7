"""From sources to clean documents, with memory for some hundred bytes of each.

1. The first pass (first_pass.py) leaves the documents that pass the rules on disk, in blocks, with their hashes.
2. On the hashes alone, those of all sources together: what holds items of an evaluation set goes, and all
   duplicates but the first.
3. Train and validation are told apart, and `Curation.documents` streams either.

What reads all text can be spread over machines (cluster.py): the first step, and of the second the look for what is
left of documents without repeated lines.

All is in the order of the sources and their blocks, so the number of workers and interruptions change nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from training.common.errors import UserError
from training.corpus.curation.blocks import StoredBlock
from training.corpus.curation.config import DataConfig
from training.corpus.curation.document_pipeline import SAMPLE_CHARACTERS, SAMPLES, Steps
from training.corpus.curation.filter_pass import check_sources, fill, fill_alone, source_parts
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.line_dedup import PrunedPart, prune_parts, pruned
from training.corpus.curation.ordering import draw
from training.corpus.curation.selection import DROPPED, TRAIN, VALIDATION, PlacedBlock, Verdicts
from training.corpus.curation.splitting import SPLITS, Split, hold_out, line_end, whole_characters
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.dedup.exact import first_of_each
from training.corpus.dedup.lines import repeated_lines
from training.corpus.dedup.neighbours import near_duplicates
from training.corpus.execution.distributed import Cluster
from training.corpus.execution.workers import Workers
from training.corpus.sources import Document

NEAR_DUPLICATES = "near_duplicates.jsonl"


class Curation:
    """The clean documents of all sources of a recipe.

    Args:
        folder: for the blocks; what an interrupted run left there is used.
        workers: processes.
        cluster: that what reads the text is spread over, in place of them.

    Attributes:
        funnel: what became of every document read.
        verdicts: on those that passed the rules.
        parts: by source, and `blocks`, those of each part.
        sizes: (documents,) bytes that they have in the end.
        copies: by kind of duplicate (exact, near): (kept documents with copies,) how many each had.
        contaminated: which document met which evaluation item, and the words that they share.
        items: of evaluations, how many were `searched` and how many were `too short` for it.

    Raises:
        UserError: nothing to read, nothing left, or nothing to hold out.
    """

    def __init__(self, config: DataConfig, folder: Path, workers: int, cluster: Cluster | None = None):
        self.config, self.folder, self.cluster = config, folder, cluster
        self.contaminated: list[dict[str, str]] = []
        self.items: Counter[str] = Counter()
        self.parts = source_parts(config, folder)
        if cluster:
            missing = [part for parts in self.parts.values() for part in parts if not part.store.end]
            sizes = [part.part.size for part in missing]
            cluster.spread("curating", missing, sizes, partial(fill_alone, config=config), lambda part: part.store.end)
        else:
            with Workers(workers, Steps, config) as pool:
                for parts in self.parts.values():
                    fill(parts, pool)
        check_sources(self.parts)
        self.ranges: dict[str, range] = {}  # the places of each source's documents
        self.copies: dict[str, np.ndarray] = {}
        self._whys: dict[str, dict[int, str]] = {}  # by reason, what condemned the first documents, by place
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
        return self.verdicts.documents(self._placed(source), split)

    everything = documents  # there is no more than that

    def keep_out(self, decontaminator: Decontaminator) -> None:
        """Drop training documents that hold an item. The one that both splits share, if there is such, stays.

        Raises:
            UserError: nothing is left to train on.
        """
        fates, shared = self.verdicts.fates, self.verdicts.halved and self.verdicts.halved[0]
        living = self.verdicts.living(self._placed())
        train = (pair for pair in living if fates[pair[0]] == TRAIN and pair[0] != shared)
        self._drop_meeting(decontaminator, *decontaminator.meet(train))
        row = {"documents": int((fates == TRAIN).sum()), "bytes": self.size("train")}
        self._check_some(row["documents"], "train")
        self.funnel.splits["train"] = row

    def size(self, split: Split, source: str | None = None) -> int:
        """Bytes of the text of a split."""
        places = self.ranges[source] if source else range(len(self.sizes))
        here = slice(places.start, places.stop)
        size = int(self.sizes[here][self.verdicts.fates[here] == SPLITS.index(split)].sum())
        if self.verdicts.halved and self.verdicts.halved[0] in places:
            place, cut = self.verdicts.halved
            moved = int(self.sizes[place]) - cut
            size += moved if split == "validation" else -moved
        return size

    def sample(self, count: int, seed: int) -> list[Document]:
        """Training documents."""
        train = (
            (identity, place)
            for first, _, block in self._placed()
            for place, identity in enumerate(block.ids(), start=first)
            if self.verdicts.fates[place] == TRAIN
        )
        places = draw(train, count, seed)
        found = {place: self.verdicts.trimmed(place, document) for place, document in self._at(np.sort(places))}
        if self.verdicts.halved and (place := self.verdicts.halved[0]) in found:
            found[place] = self.verdicts.half(found[place], "train")
        return [found[place] for place in places]

    def lengths(self) -> np.ndarray:
        """Bytes of each document kept.  # (documents,)"""
        return self.sizes[self.verdicts.fates != DROPPED]

    def counts(self, source: str) -> dict[str, int]:
        """What was kept of a source."""
        here = slice(self.ranges[source].start, self.ranges[source].stop)
        sizes = self.sizes[here][self.verdicts.fates[here] != DROPPED]
        return {"documents": len(sizes), "bytes": int(sizes.sum())}

    def samples(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Of the documents that passed the rules and were dropped later, by reason; as in `steps.curate_block`."""
        for reason, whys in self._whys.items():
            for place, document in self._at(np.array(sorted(whys), dtype=np.int64)):
                # What holds an item of an evaluation must not be published beside the model's text.
                text = "" if reason == "contaminated" else document.text[:SAMPLE_CHARACTERS]
                yield reason, {"id": document.id, "why": whys[place], "text": text}

    def encodings(self) -> Counter[str]:
        """How many documents were read from each encoding that is not UTF-8."""
        found = Counter()
        for of_source in self.blocks.values():
            for blocks in filter(None, of_source):
                found.update(blocks[-1].block.record()["position"]["encodings"])  # up to there
        return found

    def records(self) -> Iterator[dict[str, Any]]:
        """Of all blocks, in order; see `steps.curate_block`."""
        for _, _, block in self._placed():
            yield block.record()

    def _placed(self, source: str | None = None) -> Iterator[PlacedBlock]:
        for name in [source] if source else self.blocks:
            for of_part in self.blocks[name]:
                yield from of_part

    def _gather(self) -> None:
        """The funnel so far, the sizes, and what lies within the limits of the sources."""
        self.funnel = Funnel()
        self.blocks: dict[str, list[list[PlacedBlock]]] = {}
        place, limits = 0, {}
        for name, parts in self.parts.items():
            first, self.blocks[name] = place, []
            for part in parts:
                end, placed = part.store.end, []
                self.funnel.add(Funnel(end["reading"]))
                for block in part.store.blocks():
                    record = block.record()
                    self.funnel.add(Funnel(record["funnel"]))
                    placed.append(PlacedBlock(place, record["passed"], block))
                    place += record["passed"]
                self.blocks[name].append(placed)
                if len(parts) == 1:  # as every source with a limit has
                    limits[name] = end["documents"], end["cut"]
            self.ranges[name] = range(first, place)
        self._check_some(self.funnel.kept["documents"], "train")
        self.sizes = self._column("sizes")
        self.verdicts = Verdicts(np.full(place, TRAIN, dtype=np.uint8), {})
        beyond = np.zeros(place, dtype=bool)
        for name, (within, cut) in limits.items():
            places = self.ranges[name]
            if cut is not None:
                last = places.start + within - 1
                ((_, document),) = self._at(np.array([last]))
                cut = whole_characters(document.text, cut)
                self.funnel.trim_kept("beyond the limit", int(self.sizes[last]) - cut)
                self.sizes[last] = self.verdicts.cuts[last] = cut
                within -= cut == 0
            beyond[places.start + within : places.stop] = True
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
        file = self.folder / "signatures.npy"
        signatures = open_memmap(file, "w+", np.uint32, (len(alive), minhash.permutations))
        for place, passed, block in self._placed():
            first, last = np.searchsorted(alive, (place, place + passed))
            signatures[first:last] = block.array("signatures")[alive[first:last] - place]
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
        counts = self._column("matches_of_each")
        owners = np.repeat(np.arange(len(counts)), counts)
        living = self.verdicts.fates[owners] != DROPPED
        self._drop_meeting(
            self.config.decontamination.decontaminator(), owners[living], self._column("matches")[living]
        )

    def _drop_meeting(self, decontaminator: Decontaminator, owners: np.ndarray, matches: np.ndarray) -> None:
        """Of documents with runs of words of items (see `Decontaminator.meet`), those that hold an item."""
        self.items.update(decontaminator.counts)
        condemned, decontaminator = decontaminator.condemned(owners, matches, self.config.decontamination.max_documents)
        whys = {}
        for place, document in self._at(condemned):
            for item, words in decontaminator.hits(self.verdicts.trimmed(place, document).text):
                whys.setdefault(place, f"words of {item}")
                self.contaminated.append({"document": document.id, "item": item, "words": words})
        # In the text that was kept: a limit may have cut off the item.
        self._drop(np.array(list(whys), dtype=np.int64), "contaminated", "decontamination", list(whys.values()))

    def _drop_repeated_lines(self) -> None:
        self.verdicts.lines = repeated_lines(self._lines(), self.config.dedup.line, self.folder)
        alive, found = self._alive(), self._pruned()
        self.funnel.trim_kept("repeated lines", int((self.sizes[alive] - found[:, 0]).sum()))
        self.sizes[alive] = found[:, 0]
        empty = alive[found[:, 1] == 1]
        whys = ["every line stands in many documents"] * len(empty[:SAMPLES])
        self._drop(empty, "repeated lines only", "duplicates", whys)

    def _lines(self) -> Iterator[np.ndarray]:
        """The hashes of each document's lines; none of one that has been dropped."""
        for first, passed, block in self._placed():
            of_each = np.split(block.array("lines"), np.cumsum(block.array("lines_of_each"))[:-1])
            for lines, fate in zip(of_each, self.verdicts.fates[first : first + passed]):
                yield lines if fate != DROPPED else lines[:0]

    def _pruned(self) -> np.ndarray:
        """As `pruning.pruned`, of all documents."""
        if not self.cluster:
            return pruned(self.verdicts, self._placed())
        parts = [
            PrunedPart(blocks, self.folder / "pruned" / (source or "text") / f"{number:05}.npy")
            for source, of_source in self.blocks.items()
            for number, blocks in enumerate(of_source)
        ]
        missing = [part for part in parts if not part.file.is_file()]
        sizes = [sum(block.passed for block in part.blocks) for part in missing]
        verdicts = self.folder / "lines"
        self.verdicts.save(verdicts)
        work = partial(prune_parts, verdicts=verdicts)
        self.cluster.spread("pruning", missing, sizes, work, lambda part: part.file.is_file())
        return np.concatenate([np.load(part.file) for part in parts])

    def _drop(self, places: np.ndarray, reason: str, step: str, whys: list[str]) -> None:
        """Drop documents; `whys` says of the first of them what condemned each."""
        told = {place: f"{reason}: {why}" for place, why in zip(places[:SAMPLES].tolist(), whys)}
        self._whys[reason] = self._whys.get(reason, {}) | told
        self.verdicts.fates[places] = DROPPED
        self.funnel.drop_kept(reason, int(self.sizes[places].sum()), step, len(places))

    def _alive(self) -> np.ndarray:
        return np.flatnonzero(self.verdicts.fates != DROPPED)

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
            self.verdicts.fates[alive[held_out[members]]] = VALIDATION
        for number, split in enumerate(SPLITS):
            documents = int((self.verdicts.fates == number).sum())
            documents += number == VALIDATION and self.verdicts.halved is not None
            self._check_some(documents, split)
            self.funnel.splits[split] = {"documents": documents, "bytes": self.size(split)}

    def _split_by_position(self, alive: np.ndarray, target: int) -> None:
        """The first `target` bytes are train, the rest validation; the cut falls on a line's end where there is one."""
        ends = np.cumsum(self.sizes[alive])
        self.verdicts.fates[alive[ends > target]] = VALIDATION
        index = int(np.searchsorted(ends, target, side="right"))
        place, before = int(alive[index]), int(ends[index] - self.sizes[alive[index]])
        ((_, document),) = self._at(np.array([place]))
        cut = line_end(self.verdicts.trimmed(place, document).text, target - before)
        if cut:
            self.verdicts.halved, self.verdicts.fates[place] = (place, cut), TRAIN

    def _check_some(self, documents: int, split: Split) -> None:
        if not documents:
            reasons = self.funnel.reasons() or "it is empty"
            raise UserError(f"{self.config.where}: no text left for {split} after cleaning ({reasons})")

    def _ids(self, places: np.ndarray) -> dict[int, str]:
        """Of the documents at these places, which rise."""
        ids = {}
        for first, block, here in self._holding(places):
            of_block = block.ids()
            ids.update((place, of_block[place - first]) for place in here)
        return ids

    def _at(self, places: np.ndarray) -> Iterator[tuple[int, Document]]:
        """The documents at these places, which rise, as they passed the rules."""
        for first, block, here in self._holding(places):
            wanted = set(here)
            documents = enumerate(block.documents(), start=first)
            yield from ((place, document) for place, document in documents if place in wanted)

    def _holding(self, places: np.ndarray) -> Iterator[tuple[int, StoredBlock, list[int]]]:
        """The blocks with documents at these places, which rise; of each its first place, and those in it."""
        for first, passed, block in self._placed():
            if here := places[slice(*np.searchsorted(places, (first, first + passed)))].tolist():
                yield first, block, here

    def _column(self, name: str) -> np.ndarray:
        """An array of all blocks of all sources, in order."""
        return np.concatenate([block.array(name) for _, _, block in self._placed()])


def _file(identity: str) -> str:
    """A document's name without the folders, which are the person's own."""
    return identity.rsplit("/", 1)[-1]
