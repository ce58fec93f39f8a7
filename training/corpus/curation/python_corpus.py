"""The corpus that is always there: the Python source installed on this machine.

Packages are the unit of everything: none may fill too much of the text, whole ones are held out, and what a limit
leaves out is kept in mind, since there is more to mine for examples than there is to train on.
"""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from training.common.errors import UserError
from training.common.progress import progress_bar
from training.corpus import sources
from training.corpus.curation import filters
from training.corpus.curation.config import DataConfig
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.ordering import draw, shuffle_key
from training.corpus.curation.splitting import SPLITS, Split, hold_out, split_key
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.sources import Document, PythonFile

# With a limit on the corpus, no package may fill more than this share of it: what a model sees of Python should not
# be mostly torch because torch is large.
PACKAGE_SHARE = 0.08
PACKAGE_BYTES = 10_000  # which any package may fill: in a tiny corpus the share is less than a file


class PythonCorpus:
    """Files in an order drawn from the seed, so that a limit leaves many packages and not those first in the alphabet.

    The packages of the validation split are chosen by the size of all their files, and each split is then filled up
    to its part of `max_bytes`: a few megabytes of validation text come from many packages. Packages copy from each
    other, so validation files that repeat training text go as well.

    Attributes:
        funnel: what became of every file.
        contaminated: which training file met which evaluation item, and the words that they share.
        items: of evaluations, how many were `searched` and how many were `too short` for it.

    Raises:
        UserError: nothing is left for a split.
    """

    def __init__(self, config: DataConfig):
        self.config, self.funnel = config, Funnel()
        self.copies: dict[str, np.ndarray] = {}  # which file a copy repeats is not kept in mind
        self.contaminated: list[dict[str, str]] = []
        self.items: Counter[str] = Counter()
        self._decontaminators: list[Decontaminator] = []
        self._documents: dict[Split, list[Document]] = {split: [] for split in SPLITS}
        # Files that `max_bytes` left out; no file of one split's packages is in the other.
        self._spare: dict[Split, list[PythonFile]] = {split: [] for split in SPLITS}
        self._read()
        self._drop_copies()
        for split, documents in self._documents.items():
            for document in documents:
                self.funnel.keep(document.size)
            self._count(split)
        if config.decontamination.evaluation:
            self.keep_out(config.decontamination.decontaminator())

    def documents(self, split: Split, source: str | None = None) -> Iterator[Document]:
        """Of a split; there is but one source."""
        yield from self._documents[split]

    def keep_out(self, decontaminator: Decontaminator) -> None:
        """Drop training files that hold an item, and never mine those of the spare ones that do.

        Raises:
            UserError: nothing is left to train on.
        """
        self.items.update(decontaminator.counts)
        files = self._documents["train"]
        looked_through = progress_bar(files, desc="decontaminating", unit=" files")
        owners, matches = decontaminator.meet(enumerate(looked_through))
        condemned, decontaminator = decontaminator.condemned(owners, matches, self.config.decontamination.max_documents)
        self._decontaminators.append(decontaminator)
        for file in [files[number] for number in condemned.tolist()]:
            files.remove(file)
            self.funnel.drop_kept("contaminated", file.size, "decontamination", 1)
            for item, words in decontaminator.hits(file.text):
                self.contaminated.append({"document": file.id, "item": item, "words": words})
        self._count("train")

    def size(self, split: Split, source: str | None = None) -> int:
        """Bytes of the text of a split."""
        return sum(document.size for document in self._documents[split])

    def sample(self, count: int, seed: int) -> list[Document]:
        """Training documents."""
        return draw(((document.id, document) for document in self._documents["train"]), count, seed)

    def lengths(self) -> np.ndarray:
        """Bytes of each document kept.  # (documents,)"""
        return np.array([document.size for documents in self._documents.values() for document in documents])

    def counts(self, source: str) -> dict[str, int]:
        """What was kept, of the one source that there is."""
        return {unit: self.funnel.kept[unit] for unit in ("documents", "bytes")}

    def everything(self, split: Split) -> Iterator[Document]:
        """The documents of a split, then the spare files: more to mine than there is to train on."""
        documents, files = self._documents[split], self._spare[split]
        with progress_bar(total=len(documents) + len(files), desc=f"mining {split}", unit=" files") as bar:
            for document in documents:
                yield document
                bar.update()
            for file in files:
                text = sources.read_python(file.path)
                if text is not None and not filters.is_generated(text) and not self._is_contaminated(text, split):
                    yield Document(file.id, file.group, text)
                bar.update()

    def _is_contaminated(self, text: str, split: Split) -> bool:
        return split == "train" and any(known.condemns(known.matches(text)) for known in self._decontaminators)

    def _count(self, split: Split) -> None:
        documents = self._documents[split]
        if not documents:
            reasons = self.funnel.reasons() or "it is empty"
            raise UserError(f"{self.config.where}: no text left for {split} after cleaning ({reasons})")
        self.funnel.splits[split] = {"documents": len(documents), "bytes": self.size(split)}

    def _read(self) -> None:
        config, files, sizes = self.config, [], Counter()
        for file in sorted(sources.python_files(), key=lambda file: shuffle_key(config.seed, file.id)):
            reason = filters.path_reason(file.id)
            if reason:
                self.funnel.drop(reason, file.size)
            else:
                files.append(file)
                sizes[file.group] += file.size
        held_out = self._hold_out(sizes)
        budget = config.max_bytes or math.inf
        limits = {"train": (1 - config.validation_fraction) * budget, "validation": config.validation_fraction * budget}
        per_package, totals, seen = Counter(), Counter(), set()
        total = config.max_bytes or sizes.total()
        with progress_bar(total=total, desc="reading Python", unit="B", unit_scale=True) as bar:
            for file in files:
                split = "validation" if file.group in held_out else "train"
                reason, step = None, "limit"
                if per_package[file.group] + file.size > max(PACKAGE_SHARE * limits[split], PACKAGE_BYTES):
                    reason = f"package over {PACKAGE_SHARE:.0%} of the split"
                elif totals[split] + file.size > limits[split]:
                    reason = "beyond max_bytes"
                if reason:
                    self._spare[split].append(file)
                else:
                    text, step = sources.read_python(file.path), "rules"
                    reason = "undecodable" if text is None else filters.code_reason(text)
                    if not reason and (reason := filters.duplicate(text, seen)):
                        step = "duplicates"
                if reason:
                    self.funnel.drop(reason, file.size, step)
                    continue
                document = Document(file.id, file.group, text)
                self._documents[split].append(document)
                per_package[file.group] += document.size
                totals[split] += document.size
                bar.update(document.size)

    def _hold_out(self, sizes: Counter) -> set[str]:
        """Packages for validation."""
        if not sizes:
            return set()
        packages = list(sizes)
        keys = np.array([split_key(self.config.seed, package) for package in packages], dtype=np.uint64)
        target = self.config.validation_fraction * sizes.total()
        mask = hold_out(keys, np.array([sizes[package] for package in packages]), target)
        return {package for package, held_out in zip(packages, mask, strict=True) if held_out}

    def _drop_copies(self) -> None:
        """Of training text, from validation."""
        train_lines = set().union(*(filters.long_lines(document.text) for document in self._documents["train"]))
        for document in self._documents["validation"].copy():
            if filters.repeats(document.text, train_lines):
                self._documents["validation"].remove(document)
                self.funnel.drop("copy of training text", document.size, "duplicates")
