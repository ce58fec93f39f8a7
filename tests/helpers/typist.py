"""A person at a terminal: a program on a pseudo-terminal, typed at and read from."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from pathlib import Path

ROWS, COLUMNS = 50, 500  # so wide that no line is broken
ERROR_DELAY = 120  # seconds, on a busy machine


class Typist:
    """Starts a program on a terminal of its own.

    Args:
        environment: all of it.
    """

    def __init__(self, command: list[object], cwd: Path, environment: dict[str, str]):
        words = [str(word) for word in command]
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
                os.chdir(cwd)
                os.execve(words[0], words, environment)
            finally:
                os._exit(127)
        self.unread = b""

    def read_until(self, pattern: str) -> str:
        """What is on the screen up to and with the first match, since the last time. It ends with a whole character."""
        deadline = time.monotonic() + ERROR_DELAY
        while not (match := re.search(pattern.encode(), self.unread, re.DOTALL)):
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            arrived = self._arrived() if ready else b""
            assert arrived, f"waited for {pattern!r}, and saw {self.unread.decode(errors='backslashreplace')}"
            self.unread += arrived
        seen, self.unread = self.unread[: match.end()], self.unread[match.end() :]
        return seen.decode()

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def wait_until_it_waits(self) -> None:
        """Wait until the program sleeps, as it does while it waits for keys.

        Ctrl-C between the prompt and Python's `select` ends the line with the next key only: readline has a gap of some
        microseconds there, which a person cannot hit, and a program that answers at once can.
        """
        deadline = time.monotonic() + ERROR_DELAY
        status = Path("/proc", str(self.process), "stat")
        while status.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, "the program does not wait for keys"

    def wait(self) -> int:
        """The exit code, once the program has ended."""
        while arrived := self._arrived():
            self.unread += arrived
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def _arrived(self) -> bytes:
        try:
            return os.read(self.terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            return b""
