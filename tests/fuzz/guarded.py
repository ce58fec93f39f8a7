"""What a case may do: end within seconds, take little memory, and fail with one line."""

import contextlib
import resource
import signal
from collections.abc import Iterator

import psutil
from hypothesis import settings

from training.cli import explain
from training.common.errors import UserError

SECONDS, BYTES = 60, 4 << 30  # far more than a case takes on a busy machine

# The profile of the command line, or that of the suite.
LANE = settings() if settings.get_current_profile_name() == "long" else settings.get_profile("short")


class TooLong(BaseException):
    """A case that hangs."""


def _stop(*_: object) -> None:
    raise TooLong


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Limit the time and memory of what runs inside."""
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def at_most_one_line() -> Iterator[None]:
    """Let pass what `scratch` reports in one line."""
    try:
        with limited():
            yield
    except UserError as error:
        line = str(error)
    except Exception as error:
        if (line := explain(error)) is None:
            raise
    else:
        return
    assert line and not set("\n\r\0") & set(line), line
    assert len(line) < 5000
