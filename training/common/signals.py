"""Ctrl-C and SIGTERM as a wish to stop after the current step, not in the middle of it."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """Stopped by a signal, with everything saved.

    Args:
        signum: the signal; the exit code is 128 + signum, as shells and schedulers expect.
        advice: what to tell the person.
    """

    def __init__(self, signum: int, advice: str):
        super().__init__(advice)
        self.signum = signum


class StopSignals:
    """`with StopSignals() as stop:` and look at `stop.received` between steps. A second signal stops
    at once, though a checkpoint on its way is still written.

    Of several processes perhaps only one gets a signal, and all must stop after the same step: sum their `local_signals()`,
    and ask `agreed_signal` what the sum says.
    """

    numbers = (signal.SIGINT, signal.SIGTERM)
    received: int | None = None

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._receive) for number in self.numbers}
        return self

    def local_signals(self) -> list[float]:
        """1 for the signal that was received, 0 for others, (signals,)."""
        return [float(number == self.received) for number in self.numbers]

    def agreed_signal(self, wishes: list[float]) -> int | None:
        """The signal by which to stop, given how many processes received each."""
        return next((number for number, count in zip(self.numbers, wishes, strict=True) if count), None)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, signum: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signum


@contextlib.contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """A Ctrl-C that falls into a destructor comes again a moment later; Python by itself only prints and drops it.

    That is where it falls every time after a long call into Rust: the objects it made set off a garbage collection.
    """
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous
