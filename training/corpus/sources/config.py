"""Recipe keys of one source of documents."""

from dataclasses import dataclass
from typing import Literal

from training.corpus.rules import RulesConfig
from training.corpus.rules.cleaning import CleaningConfig
from training.stages.recipe import PathText, option

PYTHON, STDIN, DETECT = "python", "-", "detect"
# So that a large package, such as torch, does not dominate the Python text.
PACKAGE_SHARE = 0.08


@dataclass
class ReadingConfig:
    """Keys of a source that also stand directly below `data`, for a single source."""

    path: PathText = option(
        PYTHON,
        "what to read: 'python' (the Python source installed on this machine), '-' (standard input: JSON lines or "
        "text), a Hub dataset 'owner/name', or a file, folder or glob of text and code (.txt .md .rst .tex "
        ".py .js ...), .html .jsonl .csv .tsv, each also as .gz .zst .xz .bz2, and .parquet .arrow .feather",
    )
    text_column: str = option("text", "column that holds the text; dots lead into nested columns, as in doc.body")
    subset: str | None = option(None, "configuration of a Hub dataset, on the Hub or cloned to disk")
    split: str = option("train", "split of a dataset: on the Hub, cloned to disk, or written by datasets' save_to_disk")
    license: str | None = option(None, "licence of the texts, for the manifest and the data card")
    max_bytes: int | None = option(None, "maximum bytes of clean text (UTF-8)", at_least=1)
    max_broken: float = option(
        0.01,
        "fraction of records that may be broken, and of files that may be damaged, before the run stops",
        at_least=0,
        at_most=1,
    )
    max_document_bytes: int = option(
        20_000_000,
        "largest record in bytes; longer ones are skipped, longer text files are split at paragraphs, lines or spaces",
        at_least=1,
    )
    encoding: str = option(
        DETECT,
        "encoding of text, HTML and CSV that is not UTF-8 and has no byte-order mark: detect, utf-8 (skip such text), "
        "or a name such as cp1252",
    )
    invalid_bytes: Literal["skip", "replace"] = option(
        "skip", "bytes that are not of the encoding, and NULs: skip the document, or replace each by U+FFFD"
    )

    @property
    def replaces(self) -> bool:
        """Whether invalid bytes are replaced."""
        return self.invalid_bytes == "replace"

    def __post_init__(self):
        if self.encoding != DETECT:
            try:
                "a".encode(self.encoding)
            except LookupError:
                raise ValueError(
                    f"'encoding': unknown text encoding '{self.encoding}'; use detect, or a name such as cp1252"
                ) from None


@dataclass
class SourceConfig(ReadingConfig):
    """One source of documents. The installed Python source (`path: python`) has its own defaults for some keys."""

    weight: float | None = option(
        None,
        "share of the tokens, relative to the other weights; without weights, every document is used once",
        above=0,
    )
    max_documents: int | None = option(None, "maximum number of documents that pass the rules", at_least=1)
    max_group_share: float | None = option(
        None,
        "largest share of max_bytes that one group (a package, or a subfolder) may fill (default: no limit; for python "
        f"{PACKAGE_SHARE})",
        above=0,
        at_most=1,
    )
    mine_beyond_limits: bool | None = option(
        None,
        "also mine functions from documents beyond max_bytes, max_documents and max_group_share, for instructions, "
        "preferences and tasks (default: for python only)",
    )
    max_tokens: int | None = option(None, "maximum tokens taken into the mixture", at_least=1)
    max_epochs: float = option(1.0, "maximum passes over the source to reach its weight", above=0)
    cleaning: CleaningConfig | None = option(None, "cleaning of this source, instead of data.cleaning")
    rules: RulesConfig | None = option(
        None, "rules of this source, instead of data.rules (default for python, if that is unset: {set: python})"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.max_group_share is not None and self.max_bytes is None:
            raise ValueError("'max_group_share' is a share of 'max_bytes'; set 'max_bytes' too")
        if self.mine_beyond_limits and self.path == STDIN:
            raise ValueError("'mine_beyond_limits' reads the text twice, standard input only once; use a file")

    @property
    def group_share(self) -> float | None:
        """`max_group_share` or its default; None for no limit, as without `max_bytes`."""
        share = self.max_group_share or (PACKAGE_SHARE if self.path == PYTHON else None)
        return None if self.max_bytes is None else share

    @property
    def mined_beyond_limits(self) -> bool:
        """Whether functions are mined from documents beyond the limits too."""
        return self.path == PYTHON if self.mine_beyond_limits is None else self.mine_beyond_limits
