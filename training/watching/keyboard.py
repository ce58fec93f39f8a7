"""Keys of a terminal as they are pressed, without waiting for Enter and without echo."""

import os
import select
import sys
import time
from types import TracebackType

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = None


class Keyboard:
    """Reads keys inside a `with` block, and leaves the terminal as it was. Without one on stdin there are no keys."""

    def __enter__(self) -> "Keyboard":
        self._before = None
        self._there = sys.stdin is not None and sys.stdin.isatty()
        if self._there and termios:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._before)

    def wait(self, seconds: float) -> str:
        """The keys that were pressed within so many seconds; it returns at the first."""
        if not self._there:
            time.sleep(seconds)
            return ""
        if termios is None:
            return self._wait_on_windows(seconds)
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return ""
        keys = os.read(sys.stdin.fileno(), 1024)
        self._there = bool(keys)  # nothing is read once the terminal is closed
        return keys.decode(errors="replace")

    def _wait_on_windows(self, seconds: float) -> str:
        import msvcrt

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if msvcrt.kbhit():
                return msvcrt.getwch()
            time.sleep(0.05)
        return ""
