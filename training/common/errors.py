"""The exception for mistakes of the user, printed as one line."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]")
# Characters of the beginning and of the end that stay of a long message, such as one that quotes a column's name.
_BEGINNING, _END = 3000, 1000


class UserError(Exception):
    """A mistake in a recipe, a file or a command line.

    The message is one line, `'key': PROBLEM; FIX`: what is wrong, where (file, key, record), and what to do.
    `training.cli` prints it without a traceback and exits with 2. Raise it before anything is written. It becomes
    `printable`.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(message: str) -> str:
    """A message of one line whatever it quotes, such as the name of a file.

    Control characters become escapes, and the middle of what is longer than 4,000 characters is left out.
    """
    message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], message)
    return message if len(message) <= _BEGINNING + _END else f"{message[:_BEGINNING]} ... {message[-_END:]}"


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raise a failure to write to `folder` as UserError, except a full disk, which `training.cli` explains."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"'output_dir': {folder} cannot be written ({error.strerror}); change its permissions or choose another "
            "folder"
        ) from None


def disk_full(error: BaseException) -> bool:
    """Whether an error comes from a full disk, a quota, or a limit on the size of a file (ulimit)."""
    # torch only notices that its file is shorter than it should be
    return caused_by(error, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, quoted="unexpected pos")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of this machine, or of an accelerator, was not enough."""
    # torch's own class is only for accelerators; it is known by its name because importing torch takes a second
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def caused_by(error: BaseException | None, *numbers: int, quoted: str = "") -> bool:
    """Whether an error comes from one of these errors of the system, or quotes this text.

    The Rust libraries quote the system's text, and have no error number.
    """
    texts = [text for text in (*map(os.strerror, numbers), quoted) if text]
    while error:
        if any(text in str(error) for text in texts) or (isinstance(error, OSError) and error.errno in numbers):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_line(error: object) -> str:
    """The text of an error, or of anything else, on one line: every run of whitespace becomes a space."""
    return " ".join(str(error).split())


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message about a misspelt name: the nearest known name, or all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
