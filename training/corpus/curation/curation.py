"""Curation: from sources to a corpus of clean documents, with memory for some hundred bytes of each document.

1. The filter pass (filter_pass.py) writes the documents that pass the rules to disk, in blocks, with their hashes.
2. On the hashes alone, those of all sources together: exact and near duplicates are dropped, except the first of each,
   and documents that hold items of an evaluation set.
3. The validation split is held out.

Three steps can be spread over machines (execution/distributed.py): the filter pass, the search for near duplicates, and
the sizes of documents without repeated lines.

All is in the order of the sources and their blocks, so neither the number of workers nor interruptions change anything.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from training.common.errors import UserError
from training.corpus.curation.config import DataConfig
from training.corpus.curation.corpus import Corpus
from training.corpus.curation.document_pipeline import SAMPLES, DocumentPipeline
from training.corpus.curation.filter_pass import (
    SourcePartition,
    check_sources,
    run_filter_pass,
    run_filter_pass_alone,
    source_partitions,
)
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.line_dedup import DedupedPartition, measure_partitions, sizes_after_line_dedup
from training.corpus.curation.selection import DROPPED, TRAIN, VALIDATION, PlacedBlock
from training.corpus.curation.source_limits import SMALLEST_GROUP_LIMIT
from training.corpus.curation.splitting import hold_out, line_end, paragraph_end, too_long, whole_characters
from training.corpus.dedup.across_splits import copies_across_splits
from training.corpus.dedup.exact import first_of_each
from training.corpus.dedup.lines import repeated_lines
from training.corpus.dedup.neighbours import near_duplicates
from training.corpus.dedup.partitioned import near_duplicates_by_tasks
from training.corpus.execution.distributed import Cluster
from training.corpus.execution.workers import Workers
from training.machine.resources import available_cores

NEAR_DUPLICATES = "near_duplicates.jsonl"

Partitions = dict[str, list[SourcePartition]]


class Curation:
    """The steps from the sources of a recipe to its corpus.

        corpus = Curation(config, folder).run()

    Args:
        folder: working folder, needed for as long as the corpus is used. A run resumes from what an interrupted one
            left there.
        workers: processes; 0 for one per core.
        cluster: runs the steps that read all text, instead of these processes.
    """

    def __init__(self, config: DataConfig, folder: Path, workers: int = 0, cluster: Cluster | None = None):
        self.config, self.folder, self.workers, self.cluster = config, folder, workers, cluster

    def run(self) -> Corpus:
        """Read, clean, filter, deduplicate and split. The same machine, files and config give the same documents in
        the same order.

        Raises:
            UserError: nothing to read, nothing left after cleaning, or nothing to hold out.
        """
        dedup = self.config.dedup
        partitions = source_partitions(self.config, self.folder)
        self._filter(partitions)
        corpus = self._gather(partitions)
        self._drop_beyond_limits(corpus, partitions)
        if dedup.exact:
            self._drop_exact_duplicates(corpus)
        if dedup.near:
            self._drop_near_duplicates(corpus)
        if self.config.decontamination.evaluation:
            self._drop_contaminated(corpus)
        if dedup.lines:
            self._drop_repeated_lines(corpus)
        self._split(corpus)
        if self.config.drops_copies_across_splits:
            self._drop_copies_across_splits(corpus)
        return corpus

    def _filter(self, partitions: Partitions) -> None:
        if self.cluster:
            every = [partition for of_source in partitions.values() for partition in of_source]
            missing = [partition for partition in every if not partition.store.end]
            sizes = [partition.partition.size for partition in missing]
            work = partial(run_filter_pass_alone, config=self.config)
            self.cluster.run("filtering", missing, sizes, work, lambda partition: partition.store.end)
        else:
            with Workers(self.workers or available_cores(), DocumentPipeline, self.config) as pool:
                for of_source in partitions.values():
                    run_filter_pass(of_source, pool, self.config.seed)
        check_sources(partitions)

    def _gather(self, partitions: Partitions) -> Corpus:
        """The corpus of all blocks, with its funnel so far."""
        funnel, place = Funnel(), 0
        blocks: dict[str, list[list[PlacedBlock]]] = {}
        for name, of_source in partitions.items():
            blocks[name] = []
            for partition in of_source:
                placed = []
                funnel.add(Funnel(partition.store.end["reading"]))
                for block in partition.store.blocks():
                    record = block.record()
                    funnel.add(Funnel(record["funnel"]))
                    placed.append(PlacedBlock(place, record["passed"], block))
                    place += record["passed"]
                blocks[name].append(placed)
        corpus = Corpus(self.config, self.folder, blocks, funnel)
        corpus.check_some(funnel.kept["documents"], "train")
        return corpus

    def _drop_beyond_limits(self, corpus: Corpus, partitions: Partitions) -> None:
        """Drop what the last block has beyond the limits of its source, and cut the document in which a limit falls."""
        beyond = np.zeros(len(corpus.sizes), dtype=bool)
        for name, of_source in partitions.items():
            if len(of_source) > 1:  # a source with a limit has one partition
                continue
            end, places = of_source[0].store.end, corpus.ranges[name]
            within, cut = end["documents"], end["cut"]
            if cut is not None:
                last = places.start + within - 1
                ((_, document),) = corpus.at(np.array([last]))
                cut = whole_characters(document.text, cut)
                corpus.funnel.trim_kept("beyond the limit", int(corpus.sizes[last]) - cut)
                corpus.sizes[last] = corpus.selection.cuts[last] = cut
                within -= cut == 0
            beyond[places.start + within : places.stop] = True
        corpus.beyond_limits = places = np.flatnonzero(beyond)
        explanations = ["its source had reached its limit"] * len(places[:SAMPLES])
        corpus.drop(places, "beyond the limit", "limit", explanations)

    def _drop_exact_duplicates(self, corpus: Corpus) -> None:
        candidates = corpus.kept_places()
        firsts = first_of_each(corpus.column("hashes")[candidates])
        repeats = firsts != np.arange(len(candidates))
        dropped, kept = candidates[repeats], candidates[firsts[repeats]]
        corpus.copies["exact"] = np.unique(kept, return_counts=True)[1]
        ids = corpus.ids(np.unique(kept[:SAMPLES]))
        explanations = [f"the text of {_file(ids[place])}" for place in kept[:SAMPLES].tolist()]
        corpus.drop(dropped, "duplicate", "duplicates", explanations)

    def _drop_near_duplicates(self, corpus: Corpus) -> None:
        """Drop near duplicates and list them in near_duplicates.jsonl, each with the document that it repeats."""
        minhash, candidates = self.config.dedup.minhash, corpus.kept_places()
        # On disk: the signatures of ten gigabytes of text take gigabytes themselves.
        file = self.folder / "minhash.npy"
        if not file.is_file():  # else tasks of an interrupted run may be reading it
            self._write_signatures(corpus, candidates, file)
        if self.cluster:
            folder, tasks = self.folder / "near", self.cluster.config.tasks
            found = near_duplicates_by_tasks(file.resolve(), minhash, folder.resolve(), tasks, self.cluster.run)
        else:
            found = near_duplicates(np.load(file, mmap_mode="r"), minhash)
        dropped, kept = candidates[found.dropped], candidates[found.kept]
        originals, of_each, corpus.copies["near"] = np.unique(kept, return_inverse=True, return_counts=True)
        names = [document.id for _, document in corpus.at(originals)]
        similar = zip(of_each[:SAMPLES], found.jaccard[:SAMPLES], strict=True)
        limit = f"below {minhash.threshold:g}"
        explanations = [f"{jaccard:.3f} similar to {_file(names[original])} ({limit})" for original, jaccard in similar]
        corpus.drop(dropped, "near duplicate", "duplicates", explanations)
        with (self.folder / NEAR_DUPLICATES).open("w", encoding="utf-8") as stream:
            for (_, document), original, jaccard in zip(corpus.at(dropped), of_each, found.jaccard, strict=True):
                pair = {"dropped": document.id, "kept": names[original], "jaccard": round(float(jaccard), 3)}
                stream.write(json.dumps(pair) + "\n")
        file.unlink()

    def _write_signatures(self, corpus: Corpus, places: np.ndarray, file: Path) -> None:
        beside = file.with_suffix(".tmp")
        signatures = open_memmap(beside, "w+", np.uint32, (len(places), self.config.dedup.minhash.permutations))
        for place, passed, block in corpus.placed():
            first, last = np.searchsorted(places, (place, place + passed))
            signatures[first:last] = block.array("signatures")[places[first:last] - place]
        signatures.flush()
        beside.replace(file)

    def _drop_contaminated(self, corpus: Corpus) -> None:
        counts = corpus.column("matches_of_each")
        owners = np.repeat(np.arange(len(counts)), counts)
        kept = corpus.selection.split_of[owners] != DROPPED
        decontaminator = self.config.decontamination.decontaminator()
        corpus.drop_contaminated(decontaminator, owners[kept], corpus.column("matches")[kept])

    def _drop_repeated_lines(self, corpus: Corpus) -> None:
        corpus.selection.lines = repeated_lines(self._lines(corpus), self.config.dedup.line, self.folder)
        kept, found = corpus.kept_places(), self._sizes_after_line_dedup(corpus)
        corpus.funnel.trim_kept("repeated lines", int((corpus.sizes[kept] - found[:, 0]).sum()))
        corpus.sizes[kept] = found[:, 0]
        empty = kept[found[:, 1] == 1]
        explanations = ["every line occurs in many documents"] * len(empty[:SAMPLES])
        corpus.drop(empty, "repeated lines only", "duplicates", explanations)

    def _lines(self, corpus: Corpus) -> Iterator[np.ndarray]:
        """The hashes of each document's lines; none for a document that has been dropped."""
        for first, passed, block in corpus.placed():
            of_each = np.split(block.array("lines"), np.cumsum(block.array("lines_of_each"))[:-1])
            for lines, split in zip(of_each, corpus.selection.split_of[first : first + passed]):
                yield lines if split != DROPPED else lines[:0]

    def _sizes_after_line_dedup(self, corpus: Corpus) -> np.ndarray:
        """`line_dedup.sizes_after_line_dedup` of all documents, spread over the cluster if there is one."""
        if not self.cluster:
            return sizes_after_line_dedup(corpus.selection, corpus.placed())
        partitions = [
            DedupedPartition(blocks, self.folder / "line_dedup" / (source or "text") / f"{number:05}.npy")
            for source, of_source in corpus.blocks.items()
            for number, blocks in enumerate(of_source)
        ]
        missing = [partition for partition in partitions if not partition.file.is_file()]
        sizes = [sum(block.passed for block in partition.blocks) for partition in missing]
        selection = self.folder / "lines"
        corpus.selection.save(selection)
        work = partial(measure_partitions, selection=selection)
        self.cluster.run("line_dedup", missing, sizes, work, lambda partition: partition.file.is_file())
        return np.concatenate([np.load(partition.file) for partition in partitions])

    def _split(self, corpus: Corpus) -> None:
        """Hold out the validation split."""
        kept, config = corpus.kept_places(), self.config
        corpus.split_by = unit = config.unit or ("document" if len(kept) > 1 else "position")
        size = corpus.sizes[kept].sum()
        target = config.validation_fraction * size
        if unit == "position":
            self._split_by_position(corpus, kept, int(size - target))
        else:
            long = np.zeros(len(kept), dtype=bool)
            if config.unit is None and not config.drops_copies_across_splits:
                long = too_long(corpus.sizes[kept], config.validation_fraction)
                self._hold_out_ends(corpus, kept[long])
            self._hold_out_units(corpus, unit, kept[~long], target if long.any() else None)
        corpus.count_splits()

    def _hold_out_units(self, corpus: Corpus, unit: str, kept: np.ndarray, total: float | None) -> None:
        """Hold out whole units.

        Args:
            kept: places of their documents.
            total: bytes of all validation text, if other text is held out already.
        """
        sizes = corpus.sizes[kept]
        target = self.config.validation_fraction * sizes.sum()
        keys, members = np.unique(corpus.column(unit)[kept], return_inverse=True)
        if len(keys) < 2 and total is None:
            raise UserError(
                f"'data.split_by': {self.config.where} holds a single {unit}, so none can be held out for "
                "validation; set split_by: position"
            )
        shares = [source.group_share for source in self.config.named_sources.values()]
        most = min((max(share * target, SMALLEST_GROUP_LIMIT) for share in shares if share), default=np.inf)
        held_out = hold_out(keys, np.bincount(members, sizes), target, most, total)
        corpus.selection.split_of[kept[held_out[members]]] = VALIDATION
        self._trim_held_out(corpus, [kept[members == unit] for unit in np.flatnonzero(held_out)], most)

    def _hold_out_ends(self, corpus: Corpus, places: np.ndarray) -> None:
        """Hold out the ends of documents that are too long to be held out whole; cut between paragraphs if possible."""
        for place, document in corpus.at(places):
            size = int(corpus.sizes[place])
            held_out = int(self.config.validation_fraction * size)
            text = corpus.selection.trimmed(place, document).text
            corpus.selection.shared[place] = paragraph_end(text, size - held_out, held_out)

    def _trim_held_out(self, corpus: Corpus, units: list[np.ndarray], most: float) -> None:
        """Drop the documents that a held-out unit has beyond `most` bytes, so that none fills too much of the split."""
        beyond = []
        for unit in units:
            kept = 0
            for place in unit.tolist():
                size = int(corpus.sizes[place])
                if kept and kept + size > most:
                    beyond.append(place)
                else:
                    kept += size
        places = np.array(sorted(beyond), dtype=np.int64)
        explanations = ["its group had filled its share of the validation text"] * len(places[:SAMPLES])
        corpus.drop(places, "group over its share", "limit", explanations)
        corpus.beyond_limits = np.union1d(corpus.beyond_limits, places)

    def _split_by_position(self, corpus: Corpus, kept: np.ndarray, target: int) -> None:
        """Split by position: the first `target` bytes are train, the rest validation; cut at a line end if one is
        near."""
        ends = np.cumsum(corpus.sizes[kept])
        corpus.selection.split_of[kept[ends > target]] = VALIDATION
        index = int(np.searchsorted(ends, target, side="right"))
        place, before = int(kept[index]), int(ends[index] - corpus.sizes[kept[index]])
        ((_, document),) = corpus.at(np.array([place]))
        text, held_out = corpus.selection.trimmed(place, document).text, int(ends[-1]) - target
        cut = line_end(text, target - before, held_out)
        if cut:
            corpus.selection.shared[place], corpus.selection.split_of[place] = cut, TRAIN

    def _drop_copies_across_splits(self, corpus: Corpus) -> None:
        """Drop validation documents that repeat training text."""
        kept = corpus.selection.kept(corpus.placed())
        held_out = (pair for pair in kept if corpus.selection.split_of[pair[0]] == VALIDATION)
        copies = copies_across_splits(held_out, corpus.documents("train"))
        explanations = ["most of its long lines occur in training documents"] * len(copies[:SAMPLES])
        corpus.drop(copies, "copy of training text", "duplicates", explanations)
        corpus.count_splits()


def _file(identity: str) -> str:
    """A document's name without its folders, which may name the user."""
    return identity.rsplit("/", 1)[-1]
