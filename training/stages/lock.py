"""The lock of a folder in which one process works, and who holds it, for those who only look.

The lock itself is the operating system's, on the file `.lock`. It is released however the process ends. The file names
the host and the process, so that others can tell a run that goes on from one that was killed, also where the file
system has no locks or does not show them to other hosts.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

LOCK = ".lock"
_LOCKED = 1 << 30  # the byte that is locked on Windows: beyond the end, since others cannot read a locked one
_CLOCKS = 2  # seconds by which the clock of a file system may differ from that of the processes


@dataclass(frozen=True)
class Holder:
    """The process that took the lock of a folder last.

    Attributes:
        host: its machine.
        pid: its number there.
        since: when it took the lock, in seconds since 1970.
        alive: whether it still runs; None if it runs, or ran, on another machine.
    """

    host: str
    pid: int
    since: float
    alive: bool | None


def take_lock(folder: Path) -> TextIO:
    """Lock a folder for this process, until it ends or closes the file that is returned.

    Raises:
        BlockingIOError: another process holds the lock.
        FileNotFoundError: there is no such folder.
    """
    lock = (folder / LOCK).open("a", encoding="utf-8")
    try:
        if fcntl:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(lock.fileno(), _LOCKED, os.SEEK_SET)
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError) as error:
        lock.close()
        raise BlockingIOError(*error.args) from None
    except OSError:  # a file system without locks
        pass
    with contextlib.suppress(OSError):  # a full disk
        lock.truncate(0)
        lock.write(f"{os.getpid()} {platform.node()}\n")
        lock.flush()
    return lock


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, unless somebody else does, so that others see that work goes on in it.

    The folder is created, and removed again if it is empty at the end.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = None
    with contextlib.suppress(OSError):  # whoever works there reports what is wrong
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if lock:
                release_on_windows(lock)
                (folder / LOCK).unlink()
                lock.close()
            for path in created:
                path.rmdir()


def release_on_windows(lock: TextIO) -> None:
    """Release a lock before its folder is renamed or its file deleted, where an open file prevents both."""
    if fcntl is None:
        lock.close()


def find_holder(folder: Path) -> Holder | None:
    """The process that took the lock of a folder last; None if there is no lock, or nothing is written in it."""
    if not (folder / LOCK).is_file():
        return None
    try:
        pid, host = (folder / LOCK).read_text(encoding="utf-8").split(maxsplit=1)
        since, host = (folder / LOCK).stat().st_mtime, host.strip()
        return Holder(host, int(pid), since, _runs(int(pid), since) if host == platform.node() else None)
    except (OSError, ValueError, OverflowError):
        return None


def _runs(pid: int, since: float) -> bool:
    """Whether a process of this machine still runs. One that started later has only got the same number."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.create_time() <= since + _CLOCKS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
