"""Files with about one record per line: JSON lines or a JSON list, CSV, TSV."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from training.corpus.sources.config import SourceConfig
from training.corpus.sources.delimited import Row, decode_field, read_rows
from training.corpus.sources.document import BROKEN, Damaged, Dropped, NoColumn, Record
from training.corpus.sources.files import SourceFile
from training.corpus.sources.streams import CHUNK, lines, open_stream

_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")  # the elements of a list
ROW_BYTES = 1_000_000  # a table's rows of up to this size are parsed, even if `max_document_bytes` is less


def read_json_lines(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """One record per line, numbered by its line; or the elements of a list, if the file holds a list of objects. The
    first `skip` are skipped, lines unparsed.

    Raises:
        NoColumn: the first record of the file has other columns.
    """
    first = not skip
    with open_stream(file) as (stream, encoding):
        values = _elements if re.match(rb"\s*\[\s*[{\]]", stream.peek(1)) else _values
        for number, row, size in values(stream, config.max_document_bytes, skip):
            if isinstance(row, Dropped):
                yield row
            else:
                yield from_row(number, row, config, size, first, encoding)
                first = False


def _values(stream: BinaryIO, limit: int, skip: int) -> Iterator[tuple[int, Any, int]]:
    """The number of each line after the first `skip`, its value (or `Dropped`), and its bytes."""
    for number, line in enumerate(lines(stream, limit), start=1):
        if number <= skip:
            continue
        if isinstance(line, int):
            yield number, Dropped(number, "too large", line, f"{line:,} bytes"), line
        elif line.strip():
            try:
                row = json.loads(line.decode())
            except json.JSONDecodeError as error:
                row = Dropped(number, BROKEN, len(line), f"not valid JSON ({error.msg})")
            except UnicodeDecodeError:
                row = Dropped(number, BROKEN, len(line), "not UTF-8")
            except (ValueError, RecursionError):  # a number of thousands of digits; brackets a thousand deep
                row = Dropped(number, BROKEN, len(line), "a number too long, or nesting too deep")
            yield number, row, len(line)


def _elements(stream: BinaryIO, limit: int, skip: int) -> Iterator[tuple[int, Any, int]]:
    """The number of each element of a list after the first `skip`, the element, and its size in characters. No more
    than two elements of `limit` are in memory.

    Raises:
        Damaged: what follows is not valid JSON, is an element beyond the limit, or does not belong to the list.
    """
    parse, utf8 = json.JSONDecoder().raw_decode, codecs.getincrementaldecoder("utf-8")()
    text, number = "", 0
    while not text.lstrip():
        text += utf8.decode(stream.read(CHUNK))
    text = text.lstrip().removeprefix("[")
    place = 0
    while True:
        start = _BETWEEN.match(text, place).end()
        if text.startswith("]", start):
            if (text[start + 1 :] + utf8.decode(stream.read(CHUNK))).strip():
                raise Damaged(f"more text after a JSON list, which ends with element {number}")
            return
        try:
            row, end = parse(text, start)
            whole = end < len(text)  # at the end of what was read, a number may go on
        except (ValueError, RecursionError):
            whole = False
        if whole:
            number, place = number + 1, end
            if number > skip:
                yield number, row, end - start
            continue
        more = stream.read(max(CHUNK, len(text) - place)) if len(text) - place <= limit else b""
        if not more:
            raise Damaged(f"a JSON list that is not valid, or too large, after element {number}")
        text, place = text[place:] + utf8.decode(more), 0


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


def read_csv(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """Records of one line, or of several if fields are quoted, numbered by their first line; the header is line 1.

    Raises:
        NoColumn: the header does not name the column.
    """
    with open_stream(file) as (stream, marked):
        limit = max(config.max_document_bytes, ROW_BYTES)
        rows = read_rows(lines(stream, limit), delimiter_of(file), limit)
        header = next(rows, None)
        if header is None:  # without any line, the file is empty; it does not lack the column
            return
        if isinstance(header, Dropped):
            raise Damaged("its first line is not a CSV header")
        if config.text_column not in header.fields:
            raise NoColumn(header.fields)
        column = header.fields.index(config.text_column)
        for row in rows:
            if row.number > skip:
                yield row if isinstance(row, Dropped) else _from_field(row, column, marked, config)


def delimiter_of(file: SourceFile) -> str:
    """The character between the fields of a CSV or TSV file."""
    return "\t" if file.kind == ".tsv" else ","


def _from_field(row: Row, column: int, marked: str, config: SourceConfig) -> Record | Dropped:
    try:
        text, found = decode_field(row.fields[column], config.encoding)
    except UnicodeError as error:
        return Dropped(row.number, "undecodable", row.size, str(error))
    if (length := len(text.encode())) > config.max_document_bytes:
        return Dropped(row.number, "too large", length, f"{length:,} bytes")
    return Record(row.number, text, marked if marked != "utf-8" else found)
