"""Decontamination: finds documents that hold items of an evaluation set.

A document is contaminated when it shares a run of `ngram` words with an item, as in GPT-3 (Brown et al. 2020, arXiv
2005.14165, appendix C). Words are compared in lower case, without punctuation. An item that is shorter is looked for
as a whole, from `min_words` on: GPT-3's own lower bound. Shorter items ("yes", "the red ball") occur everywhere and are
not searched for; `Decontaminator.counts` has their number.

As there, runs in more than `max_documents` training documents are common phrases, such as licences and proverbs, and do
not count (`Decontaminator.matches` finds runs, `contaminated` ignores the common ones).
Count after deduplication: copies of a leaked item must not make it look common.

A contaminated document is dropped whole. GPT-3 removed only the text around the match, so as not to lose books. But a
question is surrounded by its context and answer, and documents here are chapters, pages and files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.common.errors import UserError
from training.corpus.dedup.evaluation_items import read_items
from training.corpus.dedup.shingles import hash_runs, hash_words, words
from training.corpus.sources import Document
from training.stages.recipe import PathText, option


@dataclass
class DecontaminationConfig:
    """Evaluation sets whose items are kept out of the text."""

    evaluation: list[PathText] = option(
        list, "files with items: lm-eval tasks (.yaml), or records (.jsonl, .json, .gz)"
    )
    fields: list[str] = option(list, "record fields whose text is searched for (default: all with text)")
    ngram: int | None = option(
        None,
        "consecutive words that a document must share with an item to be dropped (default: 13, or min_words if more)",
        at_least=1,
    )
    min_words: int | None = option(
        None,
        "minimum words of an item shorter than 'ngram' to be searched for (default: 8, or ngram if less)",
        at_least=1,
    )
    max_documents: int = option(
        10, "documents in which a run of words may occur before it counts as a common phrase", at_least=1
    )

    def __post_init__(self):
        self.ngram = max(13, self.min_words or 0) if self.ngram is None else self.ngram
        self.min_words = min(8, self.ngram) if self.min_words is None else self.min_words
        if self.min_words > self.ngram:
            raise ValueError(f"'min_words' must be at most 'ngram' ({self.ngram}), not {self.min_words}")

    def decontaminator(self) -> "Decontaminator":
        """A decontaminator for the files in `evaluation`. Raises UserError: see `Decontaminator.from_files`."""
        return Decontaminator.from_files(self.evaluation, self.ngram, self.min_words, self.fields)


class Decontaminator:
    """Finds the runs of words of evaluation items in documents.

    Args:
        items: names and texts; a name may come with several texts, such as a question and its choices.
        ngram: words in a run.
        min_words: texts of fewer words are not searched for; those below `ngram` are searched for whole.

    Attributes:
        counts: names with a text that is searched for (`searched`), and names whose texts are all `too short`.
    """

    def __init__(self, items: Iterable[tuple[str, str]], ngram: int = 13, min_words: int = 8):
        numbers: dict[str, int] = {}
        short: set[str] = set()
        runs_of: dict[int, list[np.ndarray]] = {}
        owners_of: dict[int, list[np.ndarray]] = {}
        for name, text in items:
            hashes = hash_words([words(text)])
            if len(hashes) < min_words:
                short.add(name)
                continue
            number = numbers.setdefault(name, len(numbers))
            size = min(ngram, len(hashes))
            runs = np.unique(hash_runs(hashes, size))
            runs_of.setdefault(size, []).append(runs)
            owners_of.setdefault(size, []).append(np.full(len(runs), number, np.uint32))
        self.names = list(numbers)
        self.counts = {"searched": len(numbers), "too short": len(short - numbers.keys())}
        # For each length the runs, each once, and the items that have them. Runs are numbered through all lengths.
        self._tables: list[_Table] = []
        for size in sorted(runs_of):
            first = sum(len(table.runs) for table in self._tables)
            self._tables.append(_Table.of(size, first, np.concatenate(runs_of[size]), np.concatenate(owners_of[size])))
        self._significant = np.ones(sum(len(table.runs) for table in self._tables), bool)

    @classmethod
    def from_files(
        cls, paths: Sequence[str | Path], ngram: int = 13, min_words: int = 8, fields: Sequence[str] = ()
    ) -> "Decontaminator":
        """A decontaminator for lm-eval tasks and files of records; an item is named by its file (or task) and line.

        Raises:
            UserError: a file that is not there, not readable or of an unknown kind, or no text long enough in them.
        """
        made = cls((item for path in paths for item in read_items(Path(path), fields)), ngram, min_words)
        if not made.counts["searched"]:
            names = ", ".join(map(str, paths)) or "no file"
            raise UserError(f"'decontamination.evaluation': {names}: no text of {min_words} words or more")
        return made

    @property
    def runs(self) -> int:
        """Number of different runs of words; `matches` returns their numbers."""
        return len(self._significant)

    def matches(self, text: str) -> np.ndarray:
        """Numbers of the runs in a document, each once, ascending, common ones too.  # (matches,) int64"""
        hashes = hash_words([words(text)])
        found = [table.find(hash_runs(hashes, table.size))[1] + table.first for table in self._tables]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    def without(self, common: np.ndarray) -> "Decontaminator":
        """A decontaminator that ignores some runs.  # (runs,) bool, such as `counts > config.max_documents`"""
        other = object.__new__(Decontaminator)
        other.__dict__.update(self.__dict__, _significant=self._significant & ~common)
        return other

    def contaminated(
        self, owners: np.ndarray, matches: np.ndarray, max_documents: int
    ) -> tuple[np.ndarray, "Decontaminator"]:
        """Documents that hold an item, among those that `meet` found runs in.

        Args:
            owners, matches: results of `meet`, (matches,).
            max_documents: runs in more documents than this are common phrases.

        Returns:
            Their numbers, ascending; and a decontaminator that ignores common phrases.
        """
        common = np.bincount(matches, minlength=self.runs) > max_documents
        return np.unique(owners[~common[matches]]), self.without(common)

    def meet(self, documents: Iterable[tuple[int, Document]]) -> tuple[np.ndarray, np.ndarray]:
        """The runs in numbered documents: document numbers and run numbers, both (matches,) int64."""
        owners, matches = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number, document in documents:
            found = self.matches(document.text)
            if len(found):
                owners.append(np.full(len(found), number))
                matches.append(found)
        return np.concatenate(owners), np.concatenate(matches)

    def is_contaminated(self, matches: np.ndarray) -> bool:
        """Whether a document with these runs holds an item."""
        return bool(self._significant[matches].any())

    def hits(self, text: str) -> list[tuple[str, str]]:
        """Names of the items that a document meets, each with the first run of words that they share."""
        split = words(text)
        hashes = hash_words([split])
        met: dict[int, tuple[int, int]] = {}
        for table in self._tables:
            places, runs = table.find(hash_runs(hashes, table.size))
            for place, run in zip(places.tolist(), runs.tolist(), strict=True):
                if self._significant[table.first + run]:
                    for item in table.owners[table.borders[run] : table.borders[run + 1]].tolist():
                        met[item] = min(met.get(item, (place, table.size)), (place, table.size))
        return [
            (self.names[item], " ".join(split[place : place + size])) for item, (place, size) in sorted(met.items())
        ]


@dataclass
class _Table:
    """The runs of one length.

    Attributes:
        size: words in a run.
        first: the number of the first run, among those of all lengths.
        runs: (runs,) uint64, their hashes, ascending.
        owners: the items that have them, run after run; those of run i from `borders[i]` to `borders[i + 1]`.
        prefixes: (2^bits,) bool, which first bits hashes of runs have: spares most words of a text the search.
    """

    size: int
    first: int
    runs: np.ndarray
    owners: np.ndarray
    borders: np.ndarray
    prefixes: np.ndarray
    shift: np.uint64

    @classmethod
    def of(cls, size: int, first: int, hashes: np.ndarray, owners: np.ndarray) -> "_Table":
        order = np.argsort(hashes, kind="stable")
        starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
        runs = hashes[order][starts]
        bits = min(len(runs).bit_length() + 5, 26)  # 64 MB at most
        prefixes, shift = np.zeros(1 << bits, bool), np.uint64(64 - bits)
        prefixes[runs >> shift] = True
        return cls(size, first, runs, owners[order], np.append(starts, len(order)), prefixes, shift)

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in a document where a run begins, and which run it is."""
        places = np.flatnonzero(self.prefixes[hashes >> self.shift])
        nearest = np.minimum(np.searchsorted(self.runs, hashes[places]), len(self.runs) - 1)
        found = self.runs[nearest] == hashes[places]
        return places[found], nearest[found]
