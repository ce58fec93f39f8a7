"""Rows of CSV and TSV files, strictly as text: no field is taken for a number, a date or a missing value.

A quote opens a field only at the field's beginning, and closes it only before the next delimiter or line end. One that
does not close in this way must not take the rows below it along: in a .tsv, which many programs write without quoting,
it is text; in a .csv, its row alone is broken. A field larger than the limit is skipped up to its closing quote.
"""

import csv
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from training.corpus.sources.document import BROKEN, Dropped
from training.corpus.sources.encodings import decode

_TAB = "\t"
_TOO_LARGE = "too large"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        number: of its first line, from 1.
        size: in bytes, as stored.
        fields: text; invalid bytes are kept as lone surrogates (`surrogateescape`).
    """

    number: int
    size: int
    fields: list[str]


def read_rows(lines: Iterator[bytes | int], delimiter: str, limit: int) -> Iterator[Row | Dropped]:
    """Yield the rows that are not blank; the first one is the header. Another number of fields breaks a row.

    Args:
        lines: with their ends. A line too long to be held in memory is given as its size.
        limit: characters of the largest field; a row with a larger one is dropped as too large.
    """
    source, number, width = _Lines(lines), 1, 0
    csv.field_size_limit(limit)
    rows = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        fields, fault, too_long = [], None, False
        try:
            fields = next(rows)
        except StopIteration:
            return
        except _TooLong:
            fault = _TOO_LARGE
        except csv.Error as error:
            fault = str(error)
            too_long = "limit" in fault
            if too_long or "unexpected end" in fault:
                fault = "a quote that is not closed"
        if fault or len(source.taken) > 1:
            first, *below = source.taken
            hides = bool(fault) and _hides_rows(below, delimiter, width)
            if too_long and not hides:
                fault = _TOO_LARGE
                source.skip_quoted()
            elif delimiter == _TAB and isinstance(first, bytes) and (fault or _are_rows(source.taken, width)):
                fields, fault = _text(first).rstrip("\r\n").split(_TAB), None
                source.put_back(below)
            elif hides:
                source.put_back(below)
        size = sum(line if isinstance(line, int) else len(line) for line in source.taken)
        if not fault and width and fields and len(fields) != width:
            fault = f"has {len(fields)} fields, the header {width}"
        if fault == _TOO_LARGE:
            yield Dropped(number, fault, size, f"{size:,} bytes")
        elif fault:
            yield Dropped(number, BROKEN, size, fault)
        elif fields:
            width = width or len(fields)
            yield Row(number, size, fields)
        number += len(source.taken)
        source.taken = []


def decode_field(field: str, encoding: str, replace: bool = False) -> tuple[str, str]:
    """The text of a field, and the encoding it was in; raises as `decode`."""
    return decode(field.encode(errors="surrogateescape"), encoding, replace)


def _are_rows(lines: list[bytes | int], width: int) -> bool:
    """Whether lines that a quoted field of a .tsv spans are more likely rows without quoting: each has the header's
    number of fields, and no quote is doubled."""
    tabs = width - 1
    return tabs > 0 and all(
        isinstance(line, bytes) and line.count(b"\t") == tabs and b'""' not in line for line in lines
    )


def _hides_rows(below: list[bytes | int], delimiter: str, width: int) -> bool:
    """Whether most lines below the first one of a broken record are rows. The last line, where parsing failed, counts
    only if it is the only one."""
    lines = below[:-1] or below
    return 2 * sum(_is_row(line, delimiter, width) for line in lines) > len(lines)


def _is_row(line: bytes | int, delimiter: str, width: int) -> bool:
    if isinstance(line, int):
        return False
    try:
        return len(next(csv.reader([_text(line)], delimiter=delimiter, strict=True))) == width
    except csv.Error:
        return False


def _text(line: bytes) -> str:
    return line.decode(errors="surrogateescape")


class _TooLong(Exception):
    """A line too long to hold in memory, which breaks the row it belongs to."""


class _Lines:
    """Lines as `csv` takes them.

    Attributes:
        taken: the lines given since this list was last emptied.
    """

    def __init__(self, source: Iterator[bytes | int]):
        self.source, self.taken, self._waiting = source, [], deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._next()
        self.taken.append(line)
        if isinstance(line, int):
            raise _TooLong
        return line.decode(errors="surrogateescape")

    def put_back(self, lines: list[bytes | int]) -> None:
        """Give the last of the lines taken once more."""
        self._waiting.extendleft(reversed(lines))
        del self.taken[len(self.taken) - len(lines) :]

    def skip_quoted(self) -> None:
        """Take the lines up to the one that closes a quoted field; of these, only the sizes are kept."""
        quotes = sum(line.count(b'"') for line in self.taken if isinstance(line, bytes))
        while quotes % 2:
            try:
                line = self._next()
            except StopIteration:
                return
            if isinstance(line, bytes):
                quotes += line.count(b'"')
                line = len(line)
            self.taken.append(line)

    def _next(self) -> bytes | int:
        return self._waiting.popleft() if self._waiting else next(self.source)
