"""Results of reading: a document, or the reason why a record gives none."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from training.corpus.sources.config import SourceConfig


@dataclass(frozen=True)
class Document:
    """One text, the same on every machine that reads the same source.

    Attributes:
        id: its name within the corpus.
        group: the package or folder it was published in; the unit of a split without leaks.
    """

    id: str
    group: str
    text: str

    @cached_property
    def size(self) -> int:
        """Bytes of the text as UTF-8."""
        return len(self.text.encode())


class Record(NamedTuple):
    """A text as its file holds it.

    Attributes:
        number: number of its first line, row or piece, from 1; None for the only text of its file.
        encoding: encoding from which its bytes were decoded.
    """

    number: int | None
    text: str
    encoding: str = "utf-8"


BROKEN = "broken record"


class Dropped(NamedTuple):
    """A record without a usable text.

    Attributes:
        reason: its name in the funnel.
        size: in bytes, as stored.
        detail: what is wrong with it, for the terminal.
    """

    number: int | None
    reason: str
    size: int
    detail: str | None = None


class Damaged(Exception):
    """The rest of a file cannot be read; the number of its records is unknown."""


class NoColumn(Exception):
    """The records of a file lack the column that should hold the text."""

    def __init__(self, names: list[str]):
        super().__init__(names)
        self.names = names


class NotText(Exception):
    """The column exists, and holds something other than text in every record."""


def from_row(
    number: int, row: Any, config: SourceConfig, size: int = 0, first: bool = False, encoding: str = "utf-8"
) -> Record | Dropped:
    """The text of a record; null counts as empty.

    Args:
        size: of the record in bytes, as stored; 0 if unknown.
        first: whether it is the first one of its file or dataset, whose columns should be those of all.

    Raises:
        NoColumn: the first one lacks the column. Later ones are only broken.
    """
    if not isinstance(row, dict):
        return Dropped(number, BROKEN, size, f"a record is an object with columns, not a {type(row).__name__}")
    text, column = row, config.text_column
    for name in [column] if column in row else column.split("."):
        if not isinstance(text, dict) or name not in text:
            if first:
                raise NoColumn(column_names(row))
            return Dropped(number, BROKEN, size, f"has no column '{column}'")
        text = text[name]
    if text is not None and not isinstance(text, str):
        return Dropped(number, BROKEN, size, f"'{column}' holds {type(text).__name__}, not text")
    try:
        length = len((text or "").encode())
    except UnicodeEncodeError as error:  # JSON can escape them, as in "\\ud83e"
        half = f"U+{ord(text[error.start]):04X}"
        return Dropped(number, BROKEN, size, f"'{column}' holds half of a surrogate pair ({half}), not valid UTF-8")
    if length > config.max_document_bytes:
        return Dropped(number, "too large", length, f"{length:,} bytes")
    return Record(number, text or "", encoding)


def column_names(row: dict[str, Any], prefix: str = "") -> list[str]:
    """The columns of a record, nested ones with dots."""
    names = []
    for name, value in row.items():
        names.append(prefix + name)
        if isinstance(value, dict):
            names += column_names(value, f"{prefix}{name}.")
    return names
