"""Files of records: JSON lines, a JSON list, CSV or TSV.

A corpus is read record by record: one column of each, and broken ones are reported as such. `read_records` gives whole
records to tuning, classification and evaluation, and rejects a file that has a fault.
"""

import codecs
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from training.common.errors import UserError, one_line
from training.common.files import check_file
from training.corpus.sources.config import DETECT, SourceConfig
from training.corpus.sources.delimited import Row, decode_field, read_rows
from training.corpus.sources.document import BROKEN, Damaged, Dropped, NoColumn, Record, from_row
from training.corpus.sources.files import CSV, JSON_LINES, PARQUET, SourceFile, kind_of
from training.corpus.sources.streams import CHUNK, lines, open_stream
from training.corpus.sources.tables import parquet_rows

Numbered = tuple[int, dict[str, Any]]

RECORD_ENDINGS = ".jsonl .ndjson .json .csv .tsv (also compressed) .parquet"  # for messages, see `holds_records`
_LIST = re.compile(rb"\s*\[\s*[{\]]")
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")  # the elements of a list
ROW_BYTES = 1_000_000  # a table's rows of up to this size are parsed, even if `max_document_bytes` is less
MAX_ROW_BYTES = 20_000_000  # of a field, where whole records are read
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, as in "\\ud83e"; json joins whole pairs


def read_json_lines(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """One record per line, numbered by its line; or the elements of a list, if the file holds a list of objects. The
    first `skip` are skipped, lines unparsed.

    Raises:
        NoColumn: the first record of the file has other columns.
    """
    first = not skip
    with open_stream(file) as (stream, encoding):
        values = _elements if _LIST.match(stream.peek(1)) else _values
        for number, row, size in values(stream, config, skip):
            if isinstance(row, Dropped):
                yield row
            else:
                yield from_row(number, row, config, size, first, encoding)
                first = False


def _values(stream: BinaryIO, config: SourceConfig, skip: int) -> Iterator[tuple[int, Any, int]]:
    """The number of each line after the first `skip`, its value (or `Dropped`), and its bytes."""
    for number, line in enumerate(lines(stream, config.max_document_bytes), start=1):
        if number <= skip:
            continue
        if isinstance(line, int):
            yield number, Dropped(number, "too large", line, f"{line:,} bytes"), line
        elif line.strip():
            try:
                row = json.loads(line.decode(errors="replace" if config.replaces else "strict"))
            except json.JSONDecodeError as error:
                row = Dropped(number, BROKEN, len(line), f"not valid JSON ({error.msg})")
            except UnicodeDecodeError as error:
                row = Dropped(number, BROKEN, len(line), f"byte {error.start + 1:,} of the line is not UTF-8")
            except (ValueError, RecursionError):  # a number of thousands of digits; brackets a thousand deep
                row = Dropped(number, BROKEN, len(line), "a number too long, or nesting too deep")
            yield number, row, len(line)


def _elements(stream: BinaryIO, config: SourceConfig, skip: int) -> Iterator[tuple[int, Any, int]]:
    """The number of each element of a list after the first `skip`, the element, and its size in characters. No more
    than two elements of `max_document_bytes` are in memory.

    Raises:
        Damaged: what follows is not valid JSON, is an element beyond the limit, or does not belong to the list.
    """
    parse, limit = json.JSONDecoder().raw_decode, config.max_document_bytes
    utf8 = codecs.getincrementaldecoder("utf-8")("replace" if config.replaces else "strict")
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


def read_csv(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """Records of one line, or of several if fields are quoted, numbered by their first line; the header is line 1.

    Raises:
        NoColumn: the header does not name the column.
    """
    with open_stream(file) as (stream, marked):
        limit = max(config.max_document_bytes, ROW_BYTES)
        rows = read_rows(lines(stream, limit), delimiter_of(file.kind), limit)
        header = next(rows, None)
        if header is None:  # without any line, the file is empty; it does not lack the column
            return
        if isinstance(header, Dropped):
            raise Damaged("its first line is not a CSV header")
        names = [decode_field(field, config.encoding, replace=True)[0] for field in header.fields]
        if config.text_column not in names:
            raise NoColumn(names)
        column = names.index(config.text_column)
        for row in rows:
            if row.number > skip:
                yield row if isinstance(row, Dropped) else _from_field(row, column, marked, config)


def delimiter_of(kind: str) -> str:
    """The character between the fields of a CSV or TSV file."""
    return "\t" if kind == ".tsv" else ","


def _from_field(row: Row, column: int, marked: str, config: SourceConfig) -> Record | Dropped:
    try:
        text, found = decode_field(row.fields[column], config.encoding, config.replaces)
    except UnicodeError as error:
        return Dropped(row.number, "undecodable", row.size, str(error))
    if (length := len(text.encode())) > config.max_document_bytes:
        return Dropped(row.number, "too large", length, f"{length:,} bytes")
    return Record(row.number, text, marked if marked != "utf-8" else found)


def holds_records(name: str) -> bool:
    """Whether the name of a file is that of records, see `RECORD_ENDINGS`."""
    kind = kind_of(name, named=True)
    return kind is not None and kind[0] in JSON_LINES + CSV + PARQUET


def read_records(path: Path, table: bool = False) -> Iterator[Numbered]:
    """(number, record) of each record in a file, whatever its compression, byte-order mark and kind.

    In a .csv or .tsv all values are text. What is not named as a table is JSON. Numbers count the lines of JSON lines,
    the elements of a list (whatever the file is called), and the rows of a table; all from 1.

    Args:
        table: read it as CSV, unless it is named .tsv.

    Raises:
        UserError: not readable, or not records.
    """
    check_file(path)
    kind, _ = kind_of(path.name, named=True) or (".jsonl", "")
    if table and kind not in CSV:
        kind = ".csv"
    try:
        if kind in PARQUET:
            yield from enumerate(parquet_rows(path), 1)
            return
        with open_stream(SourceFile(path, path.name, path.name, kind, "")) as (stream, _):
            yield from _records_of_table(path, stream, kind) if kind in CSV else _records_of_json(path, stream)
    except (Damaged, EOFError, OSError, UnicodeError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: cannot be read, or damaged ({one_line(error)})") from None


def _records_of_table(path: Path, stream: BinaryIO, kind: str) -> Iterator[Numbered]:
    rows = read_rows(lines(stream, MAX_ROW_BYTES), delimiter_of(kind), MAX_ROW_BYTES)
    header = next(rows, None)
    if header is None:
        return
    if isinstance(header, Dropped):
        raise UserError(f"{path}:1: not a header ({header.detail})")
    names = [_decode(field, "column", header, path) for field in header.fields]
    for number, row in enumerate(rows, 1):
        if isinstance(row, Dropped):
            raise UserError(f"{path}:{row.number}: {row.detail}")
        fields = zip(names, row.fields, strict=True)
        yield number, {name: _decode(field, f"'{name}'", row, path) for name, field in fields}


def _decode(field: str, name: str, row: Row, path: Path) -> str:
    """The text of a field. Raises UserError: no encoding fits; names the line of its row."""
    try:
        return decode_field(field, DETECT)[0]
    except UnicodeError as error:
        raise UserError(f"{path}:{row.number}: {name}: {error}") from None


def _records_of_json(path: Path, stream: BinaryIO) -> Iterator[Numbered]:
    is_list = _LIST.match(stream.peek(1))
    if is_list or not {".jsonl", ".ndjson"} & set(path.suffixes):
        whole = stream.read()
        if is_list or not _begins_with_a_line(whole):
            content = _parse(whole, path)
            for number, value in enumerate(content if isinstance(content, list) else [content], 1):
                yield _check(value, number, path, b"\\u" in whole)
            return
        stream = io.BytesIO(whole)
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield _check(_parse(line.rstrip(), path, number), number, path, b"\\u" in line)


def _begins_with_a_line(data: bytes) -> bool:
    """Whether the first line is a JSON value alone, as in a file of lines that is called .json."""
    try:
        json.loads(data.lstrip().partition(b"\n")[0])
    except (ValueError, RecursionError):
        return False
    return True


def _parse(data: bytes, path: Path, line: int = 1) -> Any:
    """The value of JSON text.

    Args:
        line: of the file, with which the text begins.

    Raises:
        UserError: with the line of the fault.
    """
    try:
        return json.loads(data.decode())
    except json.JSONDecodeError as error:
        line, problem = line + error.lineno - 1, f"not valid JSON ({error.msg})"
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        problem = f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
    except (ValueError, RecursionError):
        problem = "not valid JSON (a number too long, or nested too deeply)"
    raise UserError(f"{path}:{line}: {problem}") from None


def _check(value: Any, number: int, path: Path, may_hold_halves: bool) -> Numbered:
    """The number and the value, if it is a record of valid text."""
    if not isinstance(value, dict):
        raise UserError(f"{path}:{number}: a record must be a JSON object, not {value!r:.40}")
    if may_hold_halves and (half := _HALF.search(json.dumps(value, ensure_ascii=False))):
        raise UserError(
            f"{path}:{number}: half of a surrogate pair (U+{ord(half[0]):04X}), which is not text; remove it"
        )
    return number, value
