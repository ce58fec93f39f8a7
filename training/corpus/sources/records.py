"""Files with about one record per line: JSON lines, CSV, TSV."""

import csv
import json
from collections.abc import Iterator
from typing import Any

from training.corpus.sources.config import SourceConfig
from training.corpus.sources.document import Damaged, Dropped, NoColumn, Record
from training.corpus.sources.encodings import decode
from training.corpus.sources.files import SourceFile
from training.corpus.sources.streams import lines, open_stream

BROKEN = "broken record"


def read_json_lines(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """One record per line, numbered by its line. The first `skip` lines are skipped, unparsed.

    Raises:
        NoColumn: the first record of the file has other columns.
    """
    first = not skip
    with open_stream(file) as (stream, encoding):
        for number, line in enumerate(lines(stream, config.max_document_bytes), start=1):
            if number <= skip:
                continue
            if isinstance(line, int):
                yield Dropped(number, "too large", line)
            elif line.strip():
                try:
                    row = json.loads(line.decode())
                except json.JSONDecodeError as error:
                    yield Dropped(number, BROKEN, len(line), f"not valid JSON ({error.msg})")
                except UnicodeDecodeError:
                    yield Dropped(number, BROKEN, len(line), "not UTF-8")
                except (ValueError, RecursionError):  # a number of thousands of digits; brackets a thousand deep
                    yield Dropped(number, BROKEN, len(line), "not sane JSON")
                else:
                    yield from_row(number, row, config, len(line), first, encoding)
                    first = False


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
        return Dropped(number, "too large", length)
    return Record(number, text or "", encoding)


def column_names(row: dict[str, Any], prefix: str = "") -> list[str]:
    """The columns of a record, nested ones with dots."""
    names = []
    for name, value in row.items():
        names.append(prefix + name)
        if isinstance(value, dict):
            names += column_names(value, f"{prefix}{name}.")
    return names


class _TooLong(Exception):
    """A line too long to hold in memory, which breaks the record it belongs to."""


def read_csv(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """Records of one line, or of several if fields are quoted, numbered by their first line; the header is line 1.

    Raises:
        NoColumn: the header does not name the column.
    """
    with open_stream(file) as (stream, marked):
        source = _Lines(lines(stream, config.max_document_bytes))
        rows = csv.reader(source, delimiter="\t" if file.kind == ".tsv" else ",", strict=True)
        csv.field_size_limit(config.max_document_bytes)
        try:
            header = next(rows, [])
        except (csv.Error, _TooLong):
            raise Damaged("its first line is not a CSV header") from None
        if config.text_column not in header:
            # Without any line, the file is empty; it does not lack the column.
            if header:
                raise NoColumn(header)
            return
        column = header.index(config.text_column)
        while True:
            number, before = source.number + 1, source.size
            try:
                row = next(rows)
            except StopIteration:
                return
            except _TooLong:
                outcome = Dropped(number, "too large", source.size - before)
            except csv.Error as error:
                what = "a quote that is not closed, or a field too large" if "limit" in str(error) else str(error)
                outcome = Dropped(number, BROKEN, source.size - before, what)
            else:
                size = source.size - before
                if not row or number <= skip:
                    continue
                if len(row) != len(header):
                    outcome = Dropped(number, BROKEN, size, f"has {len(row)} fields, the header {len(header)}")
                else:
                    outcome = _from_field(number, row[column], size, marked, config.encoding)
            if number > skip:
                yield outcome


class _Lines:
    """Lines as `csv` takes them, invalid bytes kept as lone surrogates; counts lines and bytes."""

    def __init__(self, source: Iterator[bytes | int]):
        self.source, self.number, self.size = source, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.source)
        self.number += 1
        if isinstance(line, int):
            self.size += line
            raise _TooLong
        self.size += len(line)
        return line.decode(errors="surrogateescape")


def _from_field(number: int, field: str, size: int, marked: str, encoding: str) -> Record | Dropped:
    try:
        text, found = decode(field.encode(errors="surrogateescape"), encoding)
    except UnicodeError:
        return Dropped(number, "undecodable", size)
    return Record(number, text, marked if marked != "utf-8" else found)
