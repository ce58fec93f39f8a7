"""Ctrl-C and SIGTERM: stop after the current training step instead of in the middle of it."""

import _thread
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
        advice: what to print.
    """

    def __init__(self, signum: int, advice: str):
        super().__init__(advice)
        self.signum = signum


class StopSignals:
    """Records signals: `with StopSignals() as stop:`, then check `stop.received` between steps.

    A second signal stops at once; a checkpoint that is being written is still completed. Of several processes perhaps
    only one gets the signal, and all must stop after the same step: sum their `local_signals()`, and pass the sum to
    `agreed_signal`.
    """

    numbers = (signal.SIGINT, signal.SIGTERM)
    received: int | None = None

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._receive) for number in self.numbers}
        return self

    def local_signals(self) -> list[float]:
        """1 for the signal that was received, 0 for others, (signals,)."""
        return [float(number == self.received) for number in self.numbers]

    def agreed_signal(self, counts: list[float]) -> int | None:
        """The signal to stop for, given how many processes received each; None if none did."""
        return next((number for number, count in zip(self.numbers, counts, strict=True) if count), None)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, signum: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signum


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):  # it also ends a wait for the system
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:  # Windows
        _thread.interrupt_main()


@contextlib.contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Re-raise a Ctrl-C that arrived in a destructor, where Python only prints and drops it.

    After a long call into Rust it always arrives there: the objects that the call made start a garbage collection.
    """
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, _interrupt_main_thread).start()
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous
