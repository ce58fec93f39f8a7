"""Results of reading: a document, or the reason why a record gives none."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


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
