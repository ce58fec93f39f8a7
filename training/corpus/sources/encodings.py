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


def binary_fault(data: bytes, replace: bool = False) -> str | None:
    """The reason why bytes are not text: a NUL, or many control characters; None for text.

    Args:
        replace: whether `decode` will replace NULs, which then do not count.
    """
    if not replace and (place := data.find(b"\0")) >= 0:
        return f"a NUL at byte {place + 1:,} ({_place(data, place)}, {data.count(0):,} in all)"
    control = len(data) - len(data.translate(None, _CONTROL))
    return f"{control:,} control characters" if control > MAX_CONTROL * len(data) else None


def decode(data: bytes, encoding: str, replace: bool = False) -> tuple[str, str]:
    """The text, and the encoding it was in: UTF-8 if it is that, else `encoding`, which may be "detect".

    Damaged UTF-8 is not taken for something else, which would read "naÃ¯ve": where valid characters of several bytes
    are at least as many as invalid bytes, nothing is guessed.

    Args:
        replace: put U+FFFD in place of what is invalid, and of NULs.

    Raises:
        UnicodeError: it has no text; the message names the first byte that is wrong.
        UserError: the package that detects encodings is not installed.
    """
    found, why = "utf-8", ""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if encoding != DETECT:
            found = codecs.lookup(encoding).name
        elif _is_damaged(data):
            why = _fault(data, error, "utf-8", "as the rest is")
        else:
            found = detect(data) or "utf-8"
            why = _fault(data, error, "utf-8", "and no other encoding fits") if found == "utf-8" else ""
        if why and not replace:
            raise UnicodeError(why) from None
        try:
            text = data.decode(found, "replace" if replace else "strict")
        except UnicodeDecodeError as error:
            raise UnicodeError(_fault(data, error, found)) from None
    return text.replace("\0", "\ufffd") if replace else text, found


def _is_damaged(data: bytes) -> bool:
    """Whether bytes are UTF-8 with some invalid bytes, not of another encoding."""
    rest, valid = _MULTIBYTE.subn(b"", data)
    return valid >= len(rest) - len(rest.translate(None, bytes(range(128, 256))))


def _fault(data: bytes, error: UnicodeDecodeError, encoding: str, reason: str = "") -> str:
    """The first byte that is not of an encoding, its line, and how many there are."""
    invalid = "\ufffd"
    places = data.decode(encoding, "replace").count(invalid) - data.decode(encoding, "ignore").count(invalid)
    byte = f"byte {error.start + 1:,}, 0x{data[error.start]:02x}, is not {encoding.upper()}"
    return ", ".join(filter(None, [byte, reason])) + f" ({_place(data, error.start)}, {places:,} in all)"


def _place(data: bytes, place: int) -> str:
    return f"line {data.count(10, 0, place) + 1:,}"


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
