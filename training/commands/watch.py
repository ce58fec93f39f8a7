"""Show training runs in the terminal while they train: losses, learning rate, speed, time left, samples.

    scratch watch RUN [RUN ...]

RUN is the output_dir of a pretraining or tuning run, running or finished; the folder of a `scratch run`, of which the
stage at work is shown; or a folder of such folders, such as runs. Several runs share one chart. The command only reads
files, so it may start and end at any time. It ends when the runs do, and says how: finished, stopped, failed or killed.
Then its exit code is 0 if all are finished, otherwise 1. The key q or Ctrl-C leaves at once. Without a terminal it
prints a line for each record.
"""

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.stages.flags import parse
from training.stages.recipe import PathText, positional

if TYPE_CHECKING:
    from rich.console import Console

    from training.watching.watch import Watch

_READING = 1.0  # seconds between two looks at the files
_RESIZING = 0.25  # seconds in which a new size of the terminal is noticed


@dataclass
class WatchConfig:
    """Options of `scratch watch`."""

    runs: list[PathText] = positional("folders of runs", many=True, metavar="RUN")


def main(arguments: list[str]) -> None:
    """Show the runs until they end or the user leaves.

    Raises:
        UserError: a folder without a training run.
        SystemExit: with 1, a run has not finished.
    """
    options = parse(WatchConfig, arguments, __doc__, recipe=False)

    from training.watching.watch import Watch
    from training.watching.words import last_line

    watch = Watch.open(options.runs)
    try:
        stays = _show(watch)
    except KeyboardInterrupt:
        stays = False
    if not stays:
        return
    for name, run in watch.runs.items():
        print(f"{name}: {last_line(run)}", flush=True)
    if not watch.runs:
        print("no training run is left in the folder", flush=True)
    raise SystemExit(0 if watch.succeeded else 1)


def _show(watch: "Watch") -> bool:
    """Show the runs on the screen, or as lines; returns whether they have ended, False if the user left."""
    from rich.console import Console

    console = Console(highlight=False)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        return _draw(watch, console)
    _print(watch)
    return True


def _draw(watch: "Watch", console: "Console") -> bool:
    """Redraw the screen when something is new, when its size changes, and each second for the time left."""
    from rich.control import Control
    from rich.text import Text

    from training.watching.keyboard import Keyboard
    from training.watching.screen import compose

    ascii_only, drawn, read = console.options.ascii_only, None, time.monotonic()
    with console.screen(hide_cursor=True), Keyboard() as keyboard:
        while not watch.over:
            size = console.size
            if (size, read) != drawn:
                lines = compose(watch.runs, size.width, size.height, ascii_only)
                blank = [Text()] * (size.height - len(lines))
                for line in [*lines[:-1], *blank, *lines[-1:]]:
                    line.pad_right(size.width - line.cell_len)
                screen = Text("\n", no_wrap=True).join([*lines[:-1], *blank, *lines[-1:]])
                with console:  # one write
                    console.control(Control.home())
                    console.print(screen, end="", crop=False, soft_wrap=True)
                drawn = size, read
            if "q" in keyboard.wait(_RESIZING).lower():
                return False
            if time.monotonic() - read >= _READING:
                watch.refresh()
                read = time.monotonic()
    return True


def _print(watch: "Watch") -> None:
    """Print the newest record of each run, then each new one."""
    from training.watching.words import WAITING, line_of

    known: set[str] = set()
    waiting = False
    while True:
        if not watch.runs and not waiting:
            print(WAITING, flush=True)
            waiting = True
        for name, run in watch.runs.items():
            lines = [line for record in run.new if (line := line_of(run, record))]
            for line in lines if name in known else lines[-1:]:
                print(f"{name}: {line}", flush=True)
            known.add(name)
        if watch.over:
            return
        time.sleep(_READING)
        watch.refresh()
