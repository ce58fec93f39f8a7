"""Near duplicates found by tasks, each with bounded memory: the documents that `neighbours.near_duplicates` drops.

1. For each run of rows of the signatures, a task computes the keys of all bands, and sorts them into buckets.
2. For each bucket, a task compares the documents that share a key. All documents with the same key are in one bucket.
3. The command resolves the similar pairs in the order of the documents, some millions of documents at a time.

Files are written whole, so a killed task leaves none, and only missing ones are computed when the command is rerun. The
number of runs, buckets and tasks does not change the result.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from training.common.files import open_whole
from training.corpus.dedup.minhash import NOTHING, MinHashConfig
from training.corpus.dedup.neighbours import LEADERS, NearDuplicates, candidates, first_with_same, hash_rows, jaccard

ROWS = 4_000_000  # documents that one task of the first step, and each step of the last one, has in memory
_ENTRY = np.dtype([("key", "<u8"), ("whole", "<u8"), ("row", "<u4")])  # of a document in a band


@dataclass(frozen=True)
class Run:
    """Rows `start` to `stop` of the signatures, and the file for their entries: by band, then by bucket."""

    start: int
    stop: int
    file: Path

    @property
    def offsets(self) -> Path:
        """(bands, buckets + 1) int64: where the entries of each begin in the file."""
        return self.file.with_suffix(".offsets.npy")


@dataclass(frozen=True)
class Bucket:
    """A share of the keys, and the file for the similar pairs among their documents."""

    number: int
    file: Path


def near_duplicates_by_tasks(
    signatures: Path, config: MinHashConfig, folder: Path, tasks: int, run: Callable[..., None], rows: int = ROWS
) -> NearDuplicates:
    """The near duplicates among signatures in a file.

    Args:
        signatures: an .npy file of (documents, permutations) uint32 that all machines see, as is `folder`.
        folder: for the files of the tasks; deleted at the end.
        tasks: of the engine; there are as many buckets, or more.
        run: `Cluster.run`.
    """
    count = len(np.load(signatures, mmap_mode="r"))
    numbers = range(max(tasks, -(-count // rows)))
    kind = f"of-{len(numbers)}"  # a run that resumes with more or fewer tasks has other buckets
    folder.mkdir(exist_ok=True)
    runs = [
        Run(start, min(start + rows, count), folder / f"keys-{kind}-{start}.bin") for start in range(0, count, rows)
    ]
    buckets = [Bucket(number, folder / f"pairs-{kind}-{number:05}.npy") for number in numbers]
    for name, items, work in (
        ("near_keys", runs, partial(write_keys, signatures=signatures, config=config, buckets=len(buckets))),
        ("near_pairs", buckets, partial(write_pairs, runs=runs, signatures=signatures, config=config)),
    ):
        missing = [item for item in items if not item.file.is_file()]
        run(name, missing, [1] * len(missing), work, lambda item: item.file.is_file())
    dropped, kept = resolve(buckets, count, rows, folder / "winners.npy")
    shutil.rmtree(folder)
    return NearDuplicates(dropped, kept, jaccard(np.load(signatures, mmap_mode="r"), kept, dropped))


def write_keys(runs: Sequence[Run], signatures: Path, config: MinHashConfig, buckets: int) -> None:
    """The work of a task of the first step."""
    opened = np.load(signatures, mmap_mode="r")
    for run in runs:
        rows = opened[run.start : run.stop]
        usable = np.flatnonzero(rows[:, 0] != NOTHING)
        wholes = hash_rows(rows)[usable]
        offsets, written = np.empty((config.bands, buckets + 1), np.int64), 0
        with open_whole(run.file, shared=True) as stream:
            for band in range(config.bands):
                keys = hash_rows(rows[:, band * config.rows : (band + 1) * config.rows])[usable]
                bucket_of = (keys >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)
                order = np.argsort(bucket_of, kind="stable")
                entries = np.empty(len(order), _ENTRY)
                entries["key"], entries["whole"], entries["row"] = keys[order], wholes[order], usable[order]
                stream.write(entries)
                offsets[band] = written + np.searchsorted(bucket_of[order], np.arange(buckets + 1, dtype=np.uint64))
                written += len(entries)
            with open_whole(run.offsets, shared=True) as beside:
                np.save(beside, offsets)


def write_pairs(buckets: Sequence[Bucket], runs: Sequence[Run], signatures: Path, config: MinHashConfig) -> None:
    """The work of a task of the second step.

    It writes (3, pairs) int64, sorted by the second row: an earlier and a later document, and 1 if their signatures are
    equal, else 0. Of similar ones there are the first `LEADERS` of each later document.
    """
    opened = np.load(signatures, mmap_mode="r")
    for bucket in buckets:
        twins, similar = np.empty((2, 0), np.int64), np.empty((2, 0), np.int64)
        for band in range(config.bands):
            entries, documents = _entries(bucket, band, runs)
            firsts = first_with_same(entries["whole"])
            distinct = firsts == np.arange(len(firsts))
            if band == 0:  # documents with equal signatures meet in every band
                twins = np.stack([documents[firsts[~distinct]], documents[~distinct]])
            found = np.stack(candidates(entries["key"][distinct], documents[distinct]))
            found = found[:, jaccard(opened, *found) >= config.threshold]
            similar = _first_of_each_later(np.concatenate([similar, found], axis=1))
        pairs = np.concatenate([np.insert(twins, 2, 1, axis=0), np.insert(similar, 2, 0, axis=0)], axis=1)
        with open_whole(bucket.file, shared=True) as stream:
            np.save(stream, pairs[:, np.argsort(pairs[1], kind="stable")])


def _entries(bucket: Bucket, band: int, runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    """The entries of a band in a bucket, in the order of their documents, and the documents."""
    parts, documents = [], []
    for run in runs:
        first, last = np.load(run.offsets, mmap_mode="r")[band, bucket.number : bucket.number + 2].tolist()
        part = np.fromfile(run.file, _ENTRY, last - first, offset=first * _ENTRY.itemsize)
        parts.append(part)
        documents.append(run.start + part["row"].astype(np.int64))
    return np.concatenate(parts), np.concatenate(documents)


def _first_of_each_later(pairs: np.ndarray) -> np.ndarray:
    """Each pair once, sorted by the later document, and the first `LEADERS` of each of those.  # (2, pairs)"""
    pairs = pairs[:, np.lexsort(pairs)]
    new = np.append(True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0))[: pairs.shape[1]]
    pairs = pairs[:, new]
    crowded = np.zeros(pairs.shape[1], bool)
    crowded[LEADERS:] = pairs[1, LEADERS:] == pairs[1, :-LEADERS]
    return pairs[:, ~crowded]


def resolve(buckets: Sequence[Bucket], count: int, rows: int, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Documents to drop, ascending, and the kept one that each repeats: a document is dropped for the earliest similar
    one that is kept, and one with an earlier one's signature has that one's fate.

    Memory: a byte of each document, 16 of each dropped one, and the pairs of `rows` documents.

    Args:
        file: for 8 bytes a document.
    """
    dropped, winners = np.zeros(count, bool), np.lib.format.open_memmap(file, "w+", np.int64, (count,))
    for pairs, (firsts, repeats) in _ranges(buckets, count, rows):
        for earlier, later in _first_of_each_later(pairs).T.tolist():
            if not dropped[earlier] and not dropped[later]:
                dropped[later], winners[later] = True, earlier
        winners[repeats] = np.where(dropped[firsts], winners[firsts], firsts)
        dropped[repeats] = True
    numbers = np.flatnonzero(dropped)
    return numbers, winners[numbers]


def _ranges(buckets: Sequence[Bucket], count: int, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Similar pairs and twins of all buckets whose later document is among the next `rows` ones."""
    opened = [np.load(bucket.file, mmap_mode="r") for bucket in buckets]
    for start in range(0, count, rows):
        parts = [pairs[:, slice(*np.searchsorted(pairs[1], (start, start + rows)))] for pairs in opened]
        pairs = np.concatenate(parts, axis=1)
        twin = pairs[2] == 1
        yield pairs[:2, ~twin], pairs[:2, twin]
