"""Recipe keys of `data`: reading, cleaning, filtering and splitting documents."""

import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from training.corpus.dedup.decontamination import DecontaminationConfig
from training.corpus.dedup.lines import LinesConfig
from training.corpus.dedup.minhash import MinHashConfig
from training.corpus.rules import RulesConfig
from training.corpus.rules.cleaning import CleaningConfig
from training.corpus.rules.pii import PIIConfig
from training.corpus.sources import PYTHON, SourceConfig
from training.corpus.sources.config import ReadingConfig
from training.stages.recipe import option

Unit = Literal["package", "document", "position"]
_READING = fields(ReadingConfig)  # of the single source, which stand directly below `data`


@dataclass
class DedupConfig:
    """Duplicates to drop: whole documents, lines, and validation documents that repeat training text."""

    exact: bool = option(True, "drop documents whose text equals an earlier one's, except for whitespace")
    near: bool = option(False, "drop near duplicates of earlier documents")
    minhash: MinHashConfig = option(MinHashConfig, "search for near duplicates")
    lines: bool = option(False, "drop lines that occur in many documents, except from the first one; not for code")
    line: LinesConfig = option(LinesConfig, "repeated lines")
    across_splits: bool | None = option(
        None, "drop validation documents most of whose long lines occur in training text (default: for python only)"
    )


@dataclass
class DataConfig(ReadingConfig):
    """The documents of a corpus: one source (`path`) or several (`sources`), and all that is done to them."""

    sources: dict[str, SourceConfig] = option(
        dict, "several sources instead of 'path', by name, each with its path, text_column, weight, max_bytes, ..."
    )
    cleaning: CleaningConfig = option(CleaningConfig, "cleaning of each text")
    pii: PIIConfig = option(PIIConfig, "personal data to replace")
    rules: RulesConfig = option(RulesConfig, "rules that drop documents")
    dedup: DedupConfig = option(DedupConfig, "duplicates to drop")
    temperature: float = option(
        1.0,
        "above 1, sources without weights are mixed more evenly: shares follow tokens ** (1 / temperature)",
        above=0,
    )
    max_tokens: int | None = option(
        None, "maximum training tokens of all 'sources' together (default: no limit)", at_least=1
    )
    decontamination: DecontaminationConfig = option(DecontaminationConfig, "evaluation sets to keep out of the text")
    validation_fraction: float = option(0.05, "fraction of the bytes held out for validation", above=0, below=1)
    split_by: Unit | None = option(
        None,
        "unit held out whole: package, document, or position (the end of the text) (default: package for python, else "
        "document, of long ones the end only)",
    )
    seed: int = option(
        0, "seed for the validation split and for the order of installed Python files", at_least=0, below=2**32
    )

    def __post_init__(self):
        super().__post_init__()
        given = [field.name for field in _READING if getattr(self, field.name) != field.default]
        if self.sources and given:
            names = " and ".join(f"'{name}'" for name in given)
            raise ValueError(f"{names} cannot be combined with 'sources'; set them in each source")
        if len({source.weight is None for source in self.sources.values()}) > 1:
            raise ValueError("'sources': some have a weight and some have none; give weights to all or to none")
        for name in self.sources:
            if not re.fullmatch(r"\w[\w-]*", name):
                raise ValueError(f"'sources': invalid name '{name}'; use letters, digits, - and _")
        if not self.sources and (self.max_tokens is not None or self.temperature != 1):
            raise ValueError("'max_tokens' and 'temperature' need a mixture; give 'sources'")

    @cached_property
    def named_sources(self) -> dict[str, SourceConfig]:
        """`sources`, or the single one that `path` and related keys describe, under an empty name."""
        return self.sources or {"": SourceConfig(**{field.name: getattr(self, field.name) for field in _READING})}

    def cleaning_of(self, name: str) -> CleaningConfig:
        """The cleaning of a source: its own, or that of the recipe."""
        return self.named_sources[name].cleaning or self.cleaning

    def rules_of(self, name: str) -> RulesConfig:
        """The rules of a source: its own, or those of the recipe, or the default of its path."""
        source = self.named_sources[name]
        by_default = RulesConfig(set="python") if source.path == PYTHON else self.rules
        return source.rules or (by_default if self.rules == RulesConfig() else self.rules)

    @property
    def unit(self) -> Unit | None:
        """`split_by` or its default; None where that depends on the number of documents."""
        return self.split_by or ("package" if self._only_python else None)

    @property
    def drops_copies_across_splits(self) -> bool:
        """`dedup.across_splits` or its default."""
        given = self.dedup.across_splits
        return self._only_python if given is None else given

    @property
    def _only_python(self) -> bool:
        return all(source.path == PYTHON for source in self.named_sources.values())

    def key_of(self, name: str) -> str:
        """The recipe key of a source."""
        return f"data.sources.{name}" if name else "data"

    @property
    def where(self) -> str:
        """The name of all the text in error messages."""
        return "'data.sources'" if self.sources else f"'data.path': {self.path}"
