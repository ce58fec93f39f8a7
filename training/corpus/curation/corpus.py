"""The documents that a recipe speaks of, cleaned and split."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from training.common.stage import digest
from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.python_corpus import PythonCorpus
from training.corpus.curation.splitting import Split
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.dedup.evaluation_items import task_files
from training.corpus.execution.distributed import Cluster
from training.corpus.execution.workers import available_cores
from training.corpus.sources import Document, check_distinct, source_digest


class Corpus(Protocol):
    """Documents of both splits, streamed, and what became of every document read.

    Attributes:
        copies: by kind of duplicate: (kept documents with copies,) how many each had.
        contaminated: which document met which evaluation item, and the words that they share.
        items: of evaluations, how many were `searched` and how many were `too short` for it.
    """

    funnel: Funnel
    copies: dict[str, np.ndarray]
    contaminated: list[dict[str, str]]
    items: Counter[str]

    def documents(self, split: Split, source: str | None = None) -> Iterator[Document]: ...

    def size(self, split: Split, source: str | None = None) -> int: ...

    def sample(self, count: int, seed: int) -> list[Document]: ...

    def lengths(self) -> np.ndarray: ...

    def counts(self, source: str) -> dict[str, int]: ...

    def everything(self, split: Split) -> Iterator[Document]: ...

    def keep_out(self, decontaminator: Decontaminator) -> None: ...


def open_corpus(config: DataConfig, folder: Path, workers: int = 0, cluster: Cluster | None = None) -> Corpus:
    """Read, clean and split. The same machine, files and config give the same documents in the same order.

    Args:
        folder: to work in, for as long as the corpus is used; what an interrupted run left there is gone on from.
        workers: processes; 0 for one each core.
        cluster: in place of them, where the text comes from `sources`.

    Raises:
        UserError: nothing to read, nothing left after cleaning, or nothing to hold out.
    """
    if config.is_python:
        return PythonCorpus(config)
    return Curation(config, folder, workers or available_cores(), cluster)


def corpus_digest(config: DataConfig) -> str:
    """What identifies the input: the installed packages and versions, the contents of files, or the dataset's id; and
    the contents of the files that the steps read.

    Raises:
        UserError: no such file.
    """
    check_distinct({config.key_of(name): source for name, source in config.named_sources.items()})
    digests = [f"{name}:{source_digest(source, config.key_of(name))}" for name, source in config.named_sources.items()]
    for path in map(Path, config.decontamination.evaluation):
        digests += [digest(file, "data.decontamination.evaluation") for file in [*task_files(path), path]]
    rules = {config.rules_of(name).profanity for name in config.named_sources} - {None}
    digests += [digest(path, "rules.profanity") for path in sorted(rules)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
