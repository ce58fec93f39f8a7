"""Input and output of a conversation: a terminal with line editing and history, or a pipe."""

import contextlib
import glob
import os
import sys
from pathlib import Path

from training.chat.commands import COMMANDS

try:
    import readline
except ImportError:  # Windows
    readline = None

HISTORY_LINES = 1000
# Control characters as visible symbols, so that a model cannot move the cursor, ring the bell or set colours. Line
# breaks and tabs stay.
VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
VISIBLE |= {code: 0xFFFD for code in range(128, 160)}


def accept_any_text() -> None:
    """Replace invalid bytes of stdin instead of failing."""
    sys.stdin.reconfigure(errors="replace")


class Terminal:
    """Line editing and history in a terminal; plain lines in and answers out in a pipe.

    Attributes:
        interactive: whether both stdin and stdout are a terminal.
    """

    def __init__(self):
        accept_any_text()
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._history = _history_file() if self.interactive and readline else None
        if self._history:
            _edit_lines(self._history)

    def read(self) -> str | None:
        """The next message or command, or None at the end. A line that ends with a backslash continues in the next."""
        lines: list[str] = []
        while True:
            try:
                line = self._line("... " if lines else "> ")
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                print()  # after the unfinished line, which is dropped
                lines = []
                continue
            if line is None:
                return "\n".join(lines) if lines else None
            lines.append(line.removesuffix("\\"))
            if not line.endswith("\\"):
                self._remember()
                return "\n".join(lines)

    def write(self, piece: str) -> None:
        """Write a piece of an answer to stdout, without delay."""
        print(piece.translate(VISIBLE) if self.interactive else piece, end="", flush=True)

    def info(self, line: str) -> None:
        """Write a remark about the conversation to stderr."""
        print(line, file=sys.stderr, flush=True)

    def _line(self, prompt: str) -> str | None:
        if not self.interactive:
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        try:
            return input(prompt)
        except EOFError:
            print()  # so that the shell's prompt starts on a new line
            return None

    def _remember(self) -> None:
        if self._history:
            with contextlib.suppress(OSError):  # a full disk does not end the conversation
                readline.write_history_file(self._history)


def _history_file() -> Path | None:
    """The file with the lines of earlier conversations, by the XDG base directory specification."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state) / "scratch" / "chat_history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return file


def _edit_lines(history: Path) -> None:
    """Set up arrow keys, history, pasting of whole blocks, and Tab completion of commands and folders."""
    with contextlib.suppress(OSError):  # no history yet, or another user's
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer(_complete)
    readline.set_completer_delims(" \t\n")
    if "libedit" in (readline.__doc__ or ""):  # of macOS
        readline.parse_and_bind("bind ^I rl_complete")
    else:
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind("set enable-bracketed-paste on")  # a pasted block is one message


def _complete(text: str, number: int) -> str | None:
    """The completion of this number: a command at the beginning of a line, a path after a command."""
    line = readline.get_line_buffer()
    if line.startswith("/") and readline.get_begidx() == 0:
        found = [f"/{name} " for name in COMMANDS if f"/{name}".startswith(text)]
    elif line.startswith("/"):
        found = [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(glob.escape(text) + "*"))]
    else:
        found = []
    return found[number] if number < len(found) else None
