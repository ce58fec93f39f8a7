"""What of a recipe speaks of documents: where they come from, and what is done to them."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from training.common.recipe import option
from training.corpus.dedup.decontamination import DecontaminationConfig
from training.corpus.dedup.lines import LinesConfig
from training.corpus.dedup.minhash import MinHashConfig
from training.corpus.rules import RulesConfig
from training.corpus.rules.cleaning import CleaningConfig
from training.corpus.rules.pii import PIIConfig
from training.corpus.sources import PYTHON, SourceConfig


@dataclass
class DedupConfig:
    exact: bool = option(True, "drop texts that are the same as an earlier one but for white space")
    near: bool = option(False, "drop near duplicates, of which the first is kept")
    minhash: MinHashConfig = option(MinHashConfig, "how they are found")
    lines: bool = option(False, "drop lines that stand in many documents, from all but the first; not for code")
    line: LinesConfig = option(LinesConfig, "which lines those are")


@dataclass
class DataConfig:
    path: str = option(
        PYTHON,
        "what to read: 'python' (the Python source installed on this machine), a file, folder or glob, '-' for "
        "standard input, or a Hub dataset 'owner/name'",
    )
    text_column: str = option("text", "the column that holds the text (jsonl, csv, parquet, arrow, Hub)")
    subset: str | None = option(None, "configuration of a Hub dataset")
    split: str = option("train", "split of a Hub dataset")
    license: str | None = option(None, "the licence of the text, for the data card")
    max_bytes: int | None = option(None, "stop at this many bytes of clean text (UTF-8)")
    sources: dict[str, SourceConfig] = option(
        dict, "several sources in place of 'path': name to its own path, text_column, weight, max_bytes, ..."
    )
    cleaning: CleaningConfig = option(CleaningConfig, "what is mended in each text")
    pii: PIIConfig = option(PIIConfig, "personal data that is replaced")
    rules: RulesConfig = option(RulesConfig, "what drops a document")
    dedup: DedupConfig = option(DedupConfig, "what counts as a copy")
    temperature: float = option(
        1, "above 1, sources without weights are taken more evenly: shares follow tokens ** (1 / temperature)"
    )
    max_tokens: int | None = option(None, "of training text from all 'sources' together; without it, all that fit")
    decontamination: DecontaminationConfig = option(DecontaminationConfig, "evaluation sets to keep out")
    validation_fraction: float = option(0.05, "share of the bytes held out for validation")
    split_by: Literal["package", "document", "position"] | None = option(
        None, "what is held out whole; by default packages (python), documents, or the end of a single document"
    )
    seed: int = option(0, "chooses the documents under max_bytes, and what is held out")

    def __post_init__(self):
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"'validation_fraction' lies between 0 and 1, not {self.validation_fraction}")
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise ValueError(f"'max_bytes' is a positive number of bytes, not {self.max_bytes}")
        if self.sources and (self.path != PYTHON or self.max_bytes is not None):
            raise ValueError("'sources' have paths and limits of their own: give 'path' and 'max_bytes' there")
        if len({source.weight is None for source in self.sources.values()}) > 1:
            raise ValueError("'sources': give weights to all sources or to none")
        for name in self.sources:
            if not re.fullmatch(r"\w[\w-]*", name):
                raise ValueError(f"'sources': a name is letters, digits, - and _, not '{name}'")
        if not self.sources and (self.max_tokens is not None or self.temperature != 1):
            raise ValueError("'max_tokens' and 'temperature' are for a mixture of 'sources'")
        for name in ("cleaning", "pii", "rules", "dedup"):
            steps = getattr(self, name)
            if self.is_python and steps != type(steps)():
                raise ValueError(
                    f"'{name}' has no effect on the Python corpus, which has rules of its own; give it as one of "
                    "'sources' (sources: {code: {path: python}}) to have them asked instead"
                )
        if self.is_python and self.split_by not in (None, "package"):
            raise ValueError("'split_by' of the Python corpus is package, so that nothing leaks into validation")

    @property
    def is_python(self) -> bool:
        """Whether the corpus is the installed Python source and nothing else."""
        return not self.sources and self.path == PYTHON

    @cached_property
    def named_sources(self) -> dict[str, SourceConfig]:
        """`sources`, or the one that `path` and its companions stand for."""
        return self.sources or {
            "": SourceConfig(
                path=self.path,
                text_column=self.text_column,
                subset=self.subset,
                split=self.split,
                license=self.license,
                max_bytes=self.max_bytes,
            )
        }

    def cleaning_of(self, name: str) -> CleaningConfig:
        """What is mended in the texts of a source."""
        return self.named_sources[name].cleaning or self.cleaning

    def rules_of(self, name: str) -> RulesConfig:
        """What drops a document of a source."""
        return self.named_sources[name].rules or self.rules

    def key_of(self, name: str) -> str:
        """Where in the recipe a source stands."""
        return f"data.sources.{name}" if name else "data"

    @property
    def where(self) -> str:
        """What an error about all the text names."""
        return "'data.sources'" if self.sources else f"'data.path': {self.path}"
