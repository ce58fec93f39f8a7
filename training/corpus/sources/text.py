"""Files of plain text and of HTML."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from training.common.errors import UserError
from training.common.packages import how_to_install
from training.corpus.sources.config import DETECT, SourceConfig
from training.corpus.sources.document import BROKEN, Dropped, Record
from training.corpus.sources.encodings import binary_fault, decode
from training.corpus.sources.files import SourceFile
from training.corpus.sources.streams import CHUNK, open_stream

# The separator of .txt files with many documents, as in the published TinyStories.
SEPARATOR = b"<|endoftext|>"

# The parser's stack overflows somewhere above this depth, and its time grows with the square of the depth.
MAX_DEPTH = 3_000
_VOID = {b"area", b"base", b"br", b"col", b"embed", b"hr", b"img", b"input", b"link", b"meta", b"source", b"wbr"}
_ENDS_ITSELF = {b"p", b"li", b"dt", b"dd", b"tr", b"td", b"th", b"option", b"tbody", b"thead"}
_TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)[^<>]*?(/?)>")


def read_text(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """The text of a file: one document, or several numbered ones where a .txt has separators or the file is longer
    than `max_document_bytes`. The first `skip` are passed over. Newlines become `\\n`."""
    separator = SEPARATOR if file.kind == ".txt" else None
    try:
        with open_stream(file) as (stream, marked):
            pieces = _pieces(stream, config.max_document_bytes, separator)
            first = list(itertools.islice(pieces, 2))
            alone = len(first) < 2
            for number, piece in enumerate(itertools.chain(first, pieces), start=1):
                if number > skip:
                    yield _text(None if alone else number, piece, marked, config)
    except UnicodeDecodeError as error:  # below a byte-order mark; the rest goes with it
        yield Dropped(None, "undecodable", file.path.stat().st_size if file.path else 0, str(error))


def _pieces(stream: BinaryIO, limit: int, separator: bytes | None) -> Iterator[bytes]:
    """The documents of a text, each of at most `limit` bytes: cut at separators and, where that is not enough, at the
    last blank line of the second half of `limit`, at the last line end, or at the last space of a longer line."""
    pending, size, count = [], 0, 0
    paragraphs = 0  # lines up to that blank line
    for line in _short_lines(stream, limit, separator):
        parts = line.split(separator) if separator else [line]
        while pending and size + len(parts[0]) > limit:
            kept = paragraphs or len(pending)
            yield b"".join(pending[:kept])
            pending, paragraphs, count = pending[kept:], 0, count + 1
            size = sum(map(len, pending))
        for part in parts[:-1]:
            yield b"".join([*pending, part])
            pending, size, paragraphs, count = [], 0, 0, count + 1
        pending.append(parts[-1])
        size += len(parts[-1])
        if 2 * size > limit and not parts[-1].strip():
            paragraphs = len(pending)
    last = b"".join(pending)
    if last.strip() or not count:  # no document follows a final separator
        yield last


def _short_lines(stream: BinaryIO, limit: int, separator: bytes | None) -> Iterator[bytes]:
    """Lines with their ends. One of more than `limit` bytes is cut after a separator or a space in the second half of
    `limit`; without any, between two characters of UTF-8."""
    rest = b""
    while line := rest if rest.endswith(b"\n") else rest + stream.readline(limit + 1 - len(rest)):
        cut = len(line) if len(line) <= limit else _cut(line, limit, separator)
        yield line[:cut]
        rest = line[cut:]


def _cut(line: bytes, limit: int, separator: bytes | None) -> int:
    """The end of the first part of a line."""
    half = line[limit // 2 : limit]
    for end in (separator, b" "):
        if end and end in half:
            return limit // 2 + half.rindex(end) + len(end)
    within = next((back for back in range(4) if back < limit and not 0x80 <= line[limit - back] < 0xC0), 0)
    return limit - within


def _text(number: int | None, piece: bytes, marked: str, config: SourceConfig) -> Record | Dropped:
    if fault := binary_fault(piece, config.replaces):
        return Dropped(number, "binary", len(piece), fault)
    try:
        text, encoding = decode(piece, config.encoding, config.replaces)
    except UnicodeError as error:
        return Dropped(number, "undecodable", len(piece), str(error))
    return Record(number, text.replace("\r\n", "\n").replace("\r", "\n"), marked if marked != "utf-8" else encoding)


def read_html(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """The main text of a page, without navigation, headers, footers, scripts, by Resiliparse's rules.

    DCLM (https://arxiv.org/abs/2406.11794) trained models on pages by Resiliparse and by trafilatura and
    found them equal; tables and code survive the former more often (https://arxiv.org/abs/2602.19548).
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import detect_encoding
    except ModuleNotFoundError:
        raise UserError(
            f"{file}: HTML needs resiliparse, which is not installed; {how_to_install('resiliparse')}"
        ) from None
    with open_stream(file) as (stream, marked):
        data = stream.read(config.max_document_bytes + 1)
        size = len(data)
        while more := stream.read(CHUNK):
            size += len(more)
    if size > config.max_document_bytes:
        yield Dropped(None, "too large", size, f"{size:,} bytes")
        return
    if fault := binary_fault(data, config.replaces):
        yield Dropped(None, "binary", len(data), fault)
        return
    if _depth(data) > MAX_DEPTH:
        yield Dropped(None, BROKEN, len(data), f"tags nested more than {MAX_DEPTH:,} deep")
        return
    encoding = config.encoding
    if encoding == DETECT and b"charset" in data[:1024].lower():
        encoding = detect_encoding(data, from_html_meta=True)  # the encoding that the page declares
    try:
        html, encoding = decode(data, encoding, config.replaces)
    except (UnicodeError, LookupError) as error:
        yield Dropped(None, "undecodable", len(data), str(error))
        return
    text = extract_plain_text(html, main_content=True)
    yield Record(None, text, marked if marked != "utf-8" else encoding)


def _depth(html: bytes) -> int:
    """Upper bound of the nesting depth of elements; exact if all of them are closed in turn."""
    if html.count(b"<") <= MAX_DEPTH:
        return 0
    open_tags = Counter()
    depth = deepest = 0
    for closing, name, self_closing in _TAG.findall(html):
        name = name.lower()
        if name in _VOID or name in _ENDS_ITSELF or self_closing:
            continue
        if not closing:
            open_tags[name] += 1
            depth += 1
            deepest = max(deepest, depth)
        elif open_tags[name]:
            open_tags[name] -= 1
            depth -= 1
    return deepest
