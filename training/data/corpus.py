"""From documents to clean training and validation text, with every document accounted for."""

import hashlib
import importlib.metadata
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from training.data import filters, sources
from training.data.filters import Funnel
from training.data.ordering import shuffle_key
from training.data.sources import Document, PythonFile
from training.engine.progress import progress_bar
from training.engine.stage import digest
from training.errors import UserError
from training.recipe import option

PYTHON = "python"

# With a limit on the corpus, no package may fill more than this share of it: what a model sees of Python should not
# be mostly torch because torch is large.
PACKAGE_SHARE = 0.08
PACKAGE_BYTES = 10_000  # which any package may fill: in a tiny corpus the share is less than a file

# No package may fill more than this share of the validation text, so that its score speaks for many authors.
VALIDATION_SHARE = 0.25


@dataclass
class DataConfig:
    path: str = option(
        PYTHON,
        "what to read: 'python' (the Python source installed on this machine), a file, folder or glob of "
        ".txt .md .py .jsonl .jsonl.gz .parquet, or a Hub dataset 'owner/name'",
    )
    text_column: str = option("text", "the column that holds the text (jsonl, parquet, Hub)")
    subset: str | None = option(None, "configuration of a Hub dataset")
    split: str = option("train", "split of a Hub dataset")
    max_bytes: int | None = option(None, "stop at this many bytes of clean text (UTF-8)")
    validation_fraction: float = option(0.05, "share of the bytes held out for validation")
    split_by: Literal["package", "document", "position"] | None = option(
        None, "what is held out whole; by default packages (python), documents, or the end of a single document"
    )
    seed: int = option(0, "chooses the documents under max_bytes, and what is held out")

    def __post_init__(self):
        if self.path == PYTHON and self.split_by not in (None, "package"):
            raise ValueError("'split_by' of the Python corpus is package, so that nothing leaks into validation")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"'validation_fraction' lies between 0 and 1, not {self.validation_fraction}")
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise ValueError(f"'max_bytes' is a positive number of bytes, not {self.max_bytes}")


@dataclass
class Corpus:
    """Clean documents of both splits, and the count of what was read, dropped and kept.

    Attributes:
        spare: files of the same packages that `max_bytes` left out; no file of one split's packages is in the other.
    """

    train: list[Document]
    validation: list[Document]
    funnel: Funnel
    spare: dict[str, list[PythonFile]]

    def everything(self, split: Literal["train", "validation"]) -> Iterator[Document]:
        """The documents of a split, then the spare ones: more to mine than there is to train on."""
        documents, files = getattr(self, split), self.spare[split]
        with progress_bar(total=len(documents) + len(files), desc=f"mining {split}", unit=" files") as bar:
            for document in documents:
                yield document
                bar.update()
            for file in files:
                text = sources.read_python(file.path)
                if text is not None and not filters.is_generated(text):
                    yield Document(file.id, file.group, text)
                bar.update()


def load_corpus(config: DataConfig) -> Corpus:
    """Read, clean and split. The same machine, files and config give the same documents in the same order.

    Raises:
        UserError: nothing to read, nothing left after cleaning, or nothing to hold out.
    """
    corpus = _load_python(config) if config.path == PYTHON else _load_text(config)
    for name, documents in (("train", corpus.train), ("validation", corpus.validation)):
        if not documents:
            reasons = corpus.funnel.reasons() or "it is empty"
            raise UserError(f"'data.path': {config.path}: no text left for {name} after cleaning ({reasons})")
    corpus.funnel.split(corpus.train, corpus.validation)
    return corpus


def corpus_digest(config: DataConfig) -> str:
    """What identifies the input: the installed packages and versions, the contents of files, or the dataset's id.

    Raises:
        UserError: no such file.
    """
    if config.path == PYTHON:
        installed = {f"{item.metadata['Name']}=={item.version}" for item in importlib.metadata.distributions()}
        identity = [platform.python_version(), *sorted(installed)]
    elif sources.is_hub_id(config.path):
        identity = [config.path, str(config.subset), config.split]
    else:
        identity = [f"{file}:{digest(file, 'data.path')}" for file in sources.text_files(config.path)]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()


def _load_python(config: DataConfig) -> Corpus:
    """Files in an order drawn from the seed, so that a limit leaves many packages and not those first in the alphabet.

    The packages of the validation split are chosen by the size of all their files, and each split is then filled up
    to its part of `max_bytes`: a few megabytes of validation text come from many packages. Packages copy from each
    other, so validation files that repeat training text go as well.
    """
    funnel, files, sizes = Funnel(), [], Counter()
    for file in sorted(sources.python_files(), key=lambda file: shuffle_key(config.seed, file.id)):
        reason = filters.path_reason(file.id)
        if reason:
            funnel.drop(reason, file.size)
        else:
            files.append(file)
            sizes[file.group] += file.size
    held_out = _hold_out(sizes, config.validation_fraction * sizes.total(), config.seed)
    budget = config.max_bytes or math.inf
    limits = {"train": (1 - config.validation_fraction) * budget, "validation": config.validation_fraction * budget}
    per_package, totals, seen = Counter(), Counter(), set()
    kept, spare = {"train": [], "validation": []}, {"train": [], "validation": []}
    with progress_bar(total=config.max_bytes or sizes.total(), desc="reading Python", unit="B", unit_scale=True) as bar:
        for file in files:
            split = "validation" if file.group in held_out else "train"
            reason = None
            if per_package[file.group] + file.size > max(PACKAGE_SHARE * limits[split], PACKAGE_BYTES):
                reason = f"package over {PACKAGE_SHARE:.0%} of the split"
            elif totals[split] + file.size > limits[split]:
                reason = "beyond max_bytes"
            if reason:
                spare[split].append(file)
            else:
                text = sources.read_python(file.path)
                reason = "undecodable" if text is None else filters.code_reason(text) or filters.duplicate(text, seen)
            if reason:
                funnel.drop(reason, file.size)
                continue
            document = Document(file.id, file.group, text)
            kept[split].append(document)
            per_package[file.group] += document.size
            totals[split] += document.size
            bar.update(document.size)
    train_lines = set().union(*(filters.long_lines(document.text) for document in kept["train"]))
    for document in kept["validation"].copy():
        if filters.repeats(document.text, train_lines):
            kept["validation"].remove(document)
            funnel.drop("copy of training text", document.size)
    for document in kept["train"] + kept["validation"]:
        funnel.keep(document.size)
    return Corpus(kept["train"], kept["validation"], funnel, spare)


def _load_text(config: DataConfig) -> Corpus:
    funnel = Funnel()
    documents = sources.text_documents(config.path, config.text_column, config.subset, config.split, funnel)
    kept = _clean_text(documents, config.max_bytes, funnel)
    train, validation = _split(kept, config) if kept else ([], [])
    return Corpus(train, validation, funnel, spare={"train": [], "validation": []})


def _clean_text(documents: Iterable[Document], max_bytes: int | None, funnel: Funnel) -> list[Document]:
    """The user's own text, as it is: only empty documents and exact copies go. Reading stops at the limit."""
    seen, kept, total = set(), [], 0
    with progress_bar(total=max_bytes, desc="reading text", unit="B", unit_scale=True) as bar:
        for document in documents:
            reason = filters.duplicate(document.text, seen) if document.text.strip() else "empty"
            if reason:
                funnel.drop(reason, document.size)
                continue
            if max_bytes and total + document.size > max_bytes:
                head = document.text.encode()[: max_bytes - total].decode(errors="ignore")
                document = Document(document.id, document.group, head)
            if document.text:
                kept.append(document)
                funnel.keep(document.size)
                total += document.size
                bar.update(document.size)
            if max_bytes and total >= max_bytes - 3:  # a cut never splits a character, which has up to four bytes
                break
    return kept


def _split(documents: list[Document], config: DataConfig) -> tuple[list[Document], list[Document]]:
    """Train and validation documents, both in the order they came."""
    split_by = config.split_by or ("document" if len(documents) > 1 else "position")
    target = config.validation_fraction * sum(document.size for document in documents)
    if split_by == "position":
        return _split_by_position(documents, target)

    def unit(document: Document) -> str:
        return document.group if split_by == "package" else document.id

    sizes = Counter()
    for document in documents:
        sizes[unit(document)] += document.size
    if len(sizes) < 2:
        raise UserError(
            f"'data.split_by': {config.path} holds a single {split_by}, so none can be held out for validation; "
            "set split_by: position"
        )
    held_out = _hold_out(sizes, target, config.seed)
    train = [document for document in documents if unit(document) not in held_out]
    return train, [document for document in documents if unit(document) in held_out]


def _hold_out(sizes: dict[str, int], target: float, seed: int) -> set[str]:
    """Units in seeded order until their bytes reach the target; one that would fill too much of it is passed over."""
    held_out, total = set(), 0
    for name in sorted(sizes, key=lambda name: shuffle_key(seed, f"validation:{name}")):
        if sizes[name] <= VALIDATION_SHARE * target and total + sizes[name] <= target:
            held_out.add(name)
            total += sizes[name]
    return held_out or {min(sizes, key=lambda name: (sizes[name], name))}


def _split_by_position(documents: list[Document], target: float) -> tuple[list[Document], list[Document]]:
    """The first part is train, the last validation; the cut falls on a line's end where there is one nearby."""
    train, validation = [], []
    remaining = sum(document.size for document in documents) - target
    for document in documents:
        if document.size <= remaining:
            train.append(document)
        elif remaining <= 0:
            validation.append(document)
        else:
            head = document.text.encode()[: int(remaining)].decode(errors="ignore")
            cut = head.rfind("\n") + 1 or len(head)
            train.append(Document(document.id, document.group, document.text[:cut]))
            validation.append(Document(document.id, document.group, document.text[cut:]))
        remaining -= document.size
    return train, [document for document in validation if document.text]
