"""The options of one source."""

from dataclasses import dataclass

from training.common.recipe import option
from training.corpus.rules import RulesConfig
from training.corpus.rules.cleaning import CleaningConfig

PYTHON, STDIN, DETECT = "python", "-", "detect"


@dataclass
class SourceConfig:
    path: str = option(
        PYTHON,
        "what to read: 'python' (the Python source installed on this machine), '-' (standard input: JSON lines or "
        "text), a Hub dataset 'owner/name', or a file, folder or glob of .txt .md .py .html .jsonl .csv .tsv, each "
        "also as .gz .zst .xz .bz2, and .parquet .arrow .feather",
    )
    text_column: str = option("text", "the column that holds the text; dots go down into nested ones, as in doc.body")
    subset: str | None = option(None, "configuration of a Hub dataset")
    split: str = option("train", "split of a Hub dataset, or of a folder that datasets' save_to_disk wrote")
    weight: float | None = option(
        None, "its part of the tokens, beside the weights of the others; without any, everything is taken once"
    )
    license: str | None = option(None, "the licence of its texts, for the manifest and the data card")
    max_documents: int | None = option(None, "stop at this many documents that pass the rules")
    max_bytes: int | None = option(None, "stop at this many bytes of clean text (UTF-8)")
    max_tokens: int | None = option(None, "take no more than this many tokens into the mixture")
    max_epochs: float = option(1.0, "repeat it no more often than this to reach its weight")
    cleaning: CleaningConfig | None = option(None, "in place of data.cleaning, as in {set: code}")
    rules: RulesConfig | None = option(None, "in place of data.rules, as in {set: python}")
    max_broken: float = option(
        0.01, "share of broken records, and of damaged files, that is left out and counted; more stop the run"
    )
    max_document_bytes: int = option(
        20_000_000, "a longer record is left out and counted; a longer text file is cut at line ends"
    )
    encoding: str = option(
        DETECT,
        "of text, HTML and CSV that is not UTF-8 and has no byte-order mark: detect (counted by what was found), "
        "utf-8 (leave such text out), or a name such as cp1252",
    )

    def __post_init__(self):
        for name in ("max_documents", "max_bytes", "max_tokens", "max_document_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"'{name}' is a positive number, not {value}")
        for name in ("weight", "max_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"'{name}' is a positive number, not {getattr(self, name)}")
        if not 0 <= self.max_broken <= 1:
            raise ValueError(f"'max_broken' is a share between 0 and 1, not {self.max_broken}")
        if self.encoding != DETECT:
            try:
                "a".encode(self.encoding)
            except LookupError:
                raise ValueError(f"'encoding': Python knows no text encoding '{self.encoding}'") from None
