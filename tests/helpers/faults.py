"""Faults of a machine, planted into a process that runs `scratch`: SIGKILL, a full disk, a read-only disk.

A fault strikes at the n-th change that the process makes in one folder: a file opened for writing, renamed or deleted,
a folder made. Python reports each before it happens (audit events), also those of the standard library. What libraries
write without Python is hit by `limit`, and by kills at a point in time.
"""

import contextlib
import errno
import mmap
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import pytest

CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink")
NEED_SPACE = ("open", "os.mkdir", "os.link", "os.symlink")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
IN_PLACE = -1  # in the place of a number: the rename of a finished output


@dataclass(frozen=True)
class Fault:
    """A fault of the machine.

    Args:
        kind: `kill`; `full` or `read-only`, from then on; or `limit`, the maximum size of a file.
        number: of the change at which it strikes, from 1, or IN_PLACE; of a limit the bytes.
    """

    kind: str
    number: int

    def __str__(self) -> str:
        place = "the output is put in place" if self.number == IN_PLACE else f"change {self.number}"
        return f"files of at most {self.number} bytes" if self.kind == "limit" else f"{self.kind} at {place}"


class Changes:
    """An audit hook that counts the changes in a folder, over all processes forked from here, and makes a fault strike.

    Args:
        count: shared memory for the number of changes.
    """

    def __init__(self, folder: Path, fault: Fault | None, count: mmap.mmap):
        self.folder, self.fault, self.count = str(folder), fault, count

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not self._concerns_folder(event, arguments):
            return
        number = int.from_bytes(self.count[:8], "little") + 1
        self.count[:8] = number.to_bytes(8, "little")
        if not self.fault or self.fault.kind == "limit":
            return
        begins = number >= self.fault.number
        if self.fault.number == IN_PLACE:
            begins = event == "os.rename" and str(arguments[0]).endswith(".partial")
        if begins and self.fault.kind == "kill":
            os.killpg(0, signal.SIGKILL)
        elif begins and self.fault.kind == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))
        elif begins and event in NEED_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    def _concerns_folder(self, event: str, arguments: tuple[Any, ...]) -> bool:
        path = arguments[0]
        if isinstance(path, int) or (event == "open" and not arguments[2] & WRITING):
            return False
        path = os.fsdecode(path)
        descriptor = arguments[-1]  # of the folder that a relative path starts from
        if event in ("os.remove", "os.rmdir", "os.mkdir") and descriptor != -1:
            path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)
        return os.path.abspath(path).startswith(self.folder)


@dataclass(frozen=True)
class Outcome:
    """The end of a process: its exit code, what it printed, the changes that it made, and the seconds that it took."""

    code: int
    said: str
    changes: int
    seconds: float


def run_scratch(
    arguments: list[str], folder: Path, log: Path, fault: Fault | None = None, kill_after: float | None = None
) -> Outcome:
    """Run a command in a process of the fork server.

    Args:
        folder: in which changes count.
        log: for what it prints.
        kill_after: seconds after which it gets SIGKILL, with all processes that it has started.
    """
    counter = log.with_suffix(".count")
    counter.write_bytes(bytes(8))
    printed, end = get_context("forkserver").Pipe(duplex=False)  # a limit on files would limit a log as well
    started = time.monotonic()
    process = get_context("forkserver").Process(target=_scratch, args=(arguments, folder, end, counter, fault))
    process.start()
    end.close()
    copier = threading.Thread(target=_copy, args=(printed, log))
    copier.start()
    process.join(kill_after)
    if process.exitcode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just begun, or has just ended
            process.kill()
        process.join()
    copier.join()
    changes = int.from_bytes(counter.read_bytes(), "little")
    return Outcome(process.exitcode, log.read_text(errors="replace"), changes, time.monotonic() - started)


@contextlib.contextmanager
def disk_fills_in_a_picture() -> Iterator[None]:
    """In this process, a picture is half written when the disk is full."""
    from matplotlib.figure import Figure

    def savefig(_: Figure, file: Path | BinaryIO, **options: Any) -> None:
        with contextlib.ExitStack() as opened:
            stream = opened.enter_context(file.open("wb")) if isinstance(file, Path) else file
            stream.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield


def _copy(printed: Connection, log: Path) -> None:
    """Write to a log what comes through a pipe, until all processes that have it have ended."""
    with printed, log.open("wb") as stream:
        while piece := os.read(printed.fileno(), 1 << 16):
            stream.write(piece)


def _scratch(arguments: list[str], folder: Path, end: Connection, counter: Path, fault: Fault | None) -> None:
    """The body of the process.

    Args:
        end: of a pipe, for what it prints.
    """
    os.setsid()
    with end:
        os.dup2(end.fileno(), 1)
        os.dup2(end.fileno(), 2)
    with counter.open("r+b") as stream:
        count = mmap.mmap(stream.fileno(), 8)
    from forking import run_stage

    from training import cli
    from training.commands import run

    run.run_stage = run_stage  # in a process forked from this one
    if fault and fault.kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.number, fault.number))
    sys.addaudithook(Changes(folder, fault, count))
    raise SystemExit(cli.main(arguments))
