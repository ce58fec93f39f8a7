"""Decoding of bytes of unknown origin: text, or the reason why there is none."""

import codecs
import re

from training.common.errors import UserError
from training.common.packages import how_to_install
from training.corpus.sources.config import DETECT

# Whitespace, bell, backspace and escape occur in text that went through terminals and typewriters.
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\a\b\x1b") | {127})
MAX_CONTROL = 0.05  # of all bytes; among random ones it would be a tenth

_MULTIBYTE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"  # of UTF-8
)


def binary_fault(data: bytes) -> str | None:
    """The reason why bytes are not text: a NUL, or many control characters; None for text."""
    if (place := data.find(b"\0")) >= 0:
        return f"a NUL at byte {place + 1:,}"
    control = len(data) - len(data.translate(None, _CONTROL))
    return f"{control:,} control characters" if control > MAX_CONTROL * len(data) else None


def decode(data: bytes, encoding: str) -> tuple[str, str]:
    """The text, and the encoding it was in: UTF-8 if it is that, else `encoding`, which may be "detect".

    Damaged UTF-8 is not taken for something else, which would read "naÃ¯ve": where valid characters of several bytes
    are at least as many as invalid bytes, nothing is guessed.

    Raises:
        UnicodeError: it has no text; the message names the first byte that is wrong.
        UserError: the package that detects encodings is not installed.
    """
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError as error:
        if encoding != DETECT:
            return data.decode(encoding), codecs.lookup(encoding).name
        place = f"byte {error.start + 1:,}, 0x{data[error.start]:02x}, is not UTF-8"
    rest, valid = _MULTIBYTE.subn(b"", data)
    if valid >= len(rest) - len(rest.translate(None, bytes(range(128, 256)))):
        raise UnicodeError(f"{place}, as the rest is")
    found = detect(data)
    if found is None:
        raise UnicodeError(f"{place}, and no other encoding fits")
    return data.decode(found), found


def detect(data: bytes) -> str | None:
    """The encoding of bytes that are not UTF-8, by the frequencies of their characters (Mozilla's uchardet); None if
    nothing known fits.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from resiliparse.parse.encoding import detect_encoding
    except ModuleNotFoundError:
        raise UserError(
            "some text is not UTF-8, and the package that detects encodings is not installed; "
            f"{how_to_install('resiliparse')}, name the source's encoding, or leave such text out with encoding: utf-8"
        ) from None
    found = detect_encoding(data, html5_compatible=False)
    try:
        name = codecs.lookup(found).name if found else "utf-8"
    except LookupError:
        name = "utf-8"
    if name in ("utf-8", "ascii"):  # which it is not
        return None
    # Bytes 0x80 to 0x9f are control characters in ISO 8859-1, and quotation marks in what its users actually write.
    return "cp1252" if name == "iso8859-1" else name
