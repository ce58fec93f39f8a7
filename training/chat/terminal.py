"""The keyboard and the screen of a conversation, or the two ends of a pipe in their place."""

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

REMEMBERED = 1000  # lines
# Control characters as their pictures, so that no model moves the cursor, rings or paints; line breaks and tabs stay.
VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
VISIBLE |= {code: 0xFFFD for code in range(128, 160)}


class Terminal:
    """Prompts, line editing and a history where a person types; plain lines in and answers out everywhere else.

    Attributes:
        interactive: whether a person types, and reads the answers on the screen.
    """

    def __init__(self):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text, and a screen that has not every character
        sys.stdout.reconfigure(errors="replace")
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._history = _history_file() if self.interactive and readline else None
        if self._history:
            _edit_lines(self._history)

    def read(self) -> str | None:
        """What is said next, of one line or of several that end with a backslash; None at the end."""
        lines: list[str] = []
        while True:
            try:
                line = self._line("... " if lines else "> ")
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                print()  # behind the line that was begun, and is given up
                lines = []
                continue
            if line is None:
                return "\n".join(lines) if lines else None
            lines.append(line.removesuffix("\\"))
            if not line.endswith("\\"):
                self._remember()
                return "\n".join(lines)

    def write(self, piece: str) -> None:
        """Show a piece of an answer at once."""
        print(piece.translate(VISIBLE) if self.interactive else piece, end="", flush=True)

    def tell(self, line: str) -> None:
        """Say something about the conversation, which is no part of it."""
        print(line, file=sys.stderr, flush=True)

    def _line(self, prompt: str) -> str | None:
        if not self.interactive:
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        try:
            return input(prompt)
        except EOFError:
            print()  # so that the shell's prompt begins a line
            return None

    def _remember(self) -> None:
        if self._history:
            with contextlib.suppress(OSError):  # a full disk is no reason to stop talking
                readline.write_history_file(self._history)


def _history_file() -> Path | None:
    """Where the lines of earlier conversations are, by the XDG base directory specification."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state) / "scratch" / "chat_history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return file


def _edit_lines(history: Path) -> None:
    """Arrow keys, the lines of earlier conversations, whole pasted blocks, and Tab for commands and folders."""
    with contextlib.suppress(OSError):  # the first conversation, or a history of others
        readline.read_history_file(history)
    readline.set_history_length(REMEMBERED)
    readline.set_completer(_complete)
    readline.set_completer_delims(" \t\n")
    if "libedit" in (readline.__doc__ or ""):  # of macOS
        readline.parse_and_bind("bind ^I rl_complete")
    else:
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind("set enable-bracketed-paste on")  # a pasted block is one message


def _complete(text: str, number: int) -> str | None:
    """The completion of that number: a command at the beginning of a line, a path behind one."""
    line = readline.get_line_buffer()
    if line.startswith("/") and readline.get_begidx() == 0:
        found = [f"/{name} " for name in COMMANDS if f"/{name}".startswith(text)]
    elif line.startswith("/"):
        found = [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(glob.escape(text) + "*"))]
    else:
        found = []
    return found[number] if number < len(found) else None
