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
from training.corpus.sources.streams import CHUNK, lines, open_stream

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


def _pieces(stream: BinaryIO, limit: int, separator: bytes | None) -> Iterator[bytes | int]:
    """The documents of a text, each of at most `limit` bytes: cut at separators and, where that is not enough, at the
    last blank line of the second half of `limit`, or at the last line end. A longer line gives its size."""
    pending, size, count = [], 0, 0
    paragraphs = 0  # lines up to that blank line
    for line in lines(stream, limit):
        too_long = isinstance(line, int)
        parts = line.split(separator) if separator and not too_long else [line]
        while pending and (too_long or size + len(parts[0]) > limit):
            kept = paragraphs if paragraphs and not too_long else len(pending)
            yield b"".join(pending[:kept])
            pending, paragraphs, count = pending[kept:], 0, count + 1
            size = sum(map(len, pending))
        for part in parts[:-1]:
            yield b"".join([*pending, part])
            pending, size, paragraphs, count = [], 0, 0, count + 1
        if too_long:
            yield line
            count += 1
        else:
            pending.append(parts[-1])
            size += len(parts[-1])
            if 2 * size > limit and not parts[-1].strip():
                paragraphs = len(pending)
    last = b"".join(pending)
    if last.strip() or not count:  # no document follows a final separator
        yield last


def _text(number: int | None, piece: bytes | int, marked: str, config: SourceConfig) -> Record | Dropped:
    if isinstance(piece, int):
        return Dropped(number, "too large", piece, f"a line of {piece:,} bytes")
    if fault := binary_fault(piece):
        return Dropped(number, "binary", len(piece), fault)
    try:
        text, encoding = decode(piece, config.encoding)
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
    if fault := binary_fault(data):
        yield Dropped(None, "binary", len(data), fault)
        return
    if _depth(data) > MAX_DEPTH:
        yield Dropped(None, BROKEN, len(data), f"tags nested more than {MAX_DEPTH:,} deep")
        return
    encoding = config.encoding
    if encoding == DETECT and b"charset" in data[:1024].lower():
        encoding = detect_encoding(data, from_html_meta=True)  # the encoding that the page declares
    try:
        html, encoding = decode(data, encoding)
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
