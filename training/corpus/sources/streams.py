"""Streams of bytes: files of any size, decompressed, and as UTF-8 if a byte-order mark names another encoding."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import sys
from collections.abc import Iterator
from typing import BinaryIO

from training.common.files import reject_lfs_pointer
from training.corpus.sources.document import Damaged
from training.corpus.sources.files import SourceFile

CHUNK = 1 << 18

# Text compresses to between a third and a tenth, a repeated line to a hundredth. A higher ratio is a decompression
# bomb, made to fill memory and disk. The first bytes do not count: a short run of blanks is not a bomb.
MAX_RATIO = 500
FREE_BYTES = 100_000_000

# UTF-32's little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The first bytes of compressed files: many are named as if they were not compressed.
_COMPRESSED = re.compile(
    rb"(?P<gz>\x1f\x8b\x08)|(?P<zst>\x28\xb5\x2f\xfd)|(?P<xz>\xfd7zXZ\x00)|(?P<bz2>BZh[1-9]1AY&SY)", re.DOTALL
)


@contextlib.contextmanager
def open_stream(file: SourceFile) -> Iterator[tuple[BinaryIO, str]]:
    """The content of a file, decompressed as it is read, and the encoding its byte-order mark names, else "utf-8".

    Compression is seen from the first bytes too: a gzip file may be called .jsonl. The content is without the mark, and
    UTF-8 if there was one. While reading, besides the errors of the decompressors, there may be `Damaged` for a bomb
    and UnicodeDecodeError below a byte-order mark that is wrong.
    """
    with contextlib.ExitStack() as opened:
        if file.path is None:
            stream = sys.stdin.buffer
        else:
            reject_lfs_pointer(file.path)
            stored = stream = opened.enter_context(file.path.open("rb"))
            found = _COMPRESSED.match(stored.peek(16))
            if compression := f".{found.lastgroup}" if found else file.compression:
                plain = opened.enter_context(_decompress(stored, compression))
                stream = opened.enter_context(io.BufferedReader(_Guarded(plain, stored), CHUNK))
        head = stream.peek(4)
        mark, encoding = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))
        if encoding in ("utf-16", "utf-32"):
            stream = opened.enter_context(io.BufferedReader(_Transcoded(stream, encoding), CHUNK))
        else:
            stream.read(len(mark))
        yield stream, encoding.removesuffix("-sig")


def lines(stream: BinaryIO, limit: int) -> Iterator[bytes | int]:
    """Lines with their ends. A line of more than `limit` bytes is never held in memory; only its size is returned."""
    while line := stream.readline(limit + 1):
        if len(line) <= limit:
            yield line
            continue
        size = len(line)
        while not line.endswith(b"\n") and (line := stream.readline(CHUNK)):
            size += len(line)
        yield size


def _decompress(stored: BinaryIO, compression: str) -> BinaryIO:
    if compression == ".gz":
        return gzip.GzipFile(fileobj=stored)
    if compression == ".bz2":
        return bz2.BZ2File(stored)
    if compression == ".xz":
        return lzma.LZMAFile(stored)
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, "r"), "zstd")


class _Guarded(io.RawIOBase):
    """A decompressed stream that raises `Damaged` when it grows out of all proportion."""

    def __init__(self, plain: BinaryIO, stored: BinaryIO):
        self.plain, self.stored, self.count = plain, stored, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = self.plain.read(len(buffer))
        self.count += len(data)
        if self.count > FREE_BYTES and self.count > MAX_RATIO * self.stored.tell():
            raise Damaged(f"grows to more than {MAX_RATIO} times its size, which text does not: a decompression bomb")
        buffer[: len(data)] = data
        return len(data)


class _Transcoded(io.RawIOBase):
    """UTF-8 of a stream that begins with the byte-order mark of another Unicode encoding."""

    def __init__(self, stream: BinaryIO, encoding: str):
        self.stream, self.decoder, self.ready = stream, codecs.getincrementaldecoder(encoding)(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self.ready:
            data = self.stream.read(CHUNK)
            self.ready = self.decoder.decode(data, final=not data).encode()
            if not data:
                break
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count
