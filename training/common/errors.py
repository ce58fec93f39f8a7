"""The one exception that speaks to the person at the keyboard."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A mistake in a recipe, a file or a command line.

    The message is one line: what is wrong, where (file, key, record), what to do. `training.cli` prints it without a
    traceback and exits with 2, so raise it before anything is written.
    """


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raise what goes wrong with writing there as UserError. A full disk stays what it is: `training.cli` tells it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"'output_dir': {folder} cannot be written ({error.strerror}); change its permissions or choose another "
            "folder"
        ) from None


def one_line(error: object) -> str:
    """The text of an error (or of anything else) with its line breaks and runs of spaces made single spaces."""
    return " ".join(str(error).split())
