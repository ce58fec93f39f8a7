"""Processes: children that get our signals; of a launcher, the rank (`RANK`), and output of the first one only."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

ERROR_DELAY = 20  # seconds, in which the first process ends and its launcher notices, also on a busy machine


def rank() -> int:
    """The number of this process, 0 for the first."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """The number of this process among those on the same machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """The number of processes, on all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


def run_child(command: list[str]) -> int:
    """Run a program to its end, passing on Ctrl-C and SIGTERM; return its exit code, negative for a signal.

    Its process group is separate, so that Ctrl-C reaches it once, through this process, and it can save first. On
    Windows Ctrl-C reaches both, and this process waits for the other.
    """
    child = subprocess.Popen(command, process_group=0)

    def forward(signum: int, _: FrameType | None) -> None:
        if sys.platform != "win32" or signum != signal.SIGINT:
            child.send_signal(signum)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def rank_zero_stdout() -> Iterator[None]:
    """Let only the first process print. All may still report errors on stderr."""
    if rank() == 0:
        yield
    else:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield


def print_any_text() -> None:
    """Replace characters that the encoding of stdout lacks, as in a pipe on Windows, instead of failing.

    Python does so on stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def print_error(line: str) -> None:
    """Print an error on stderr.

    A mistake in the recipe is the same in every process. The first prints it, and the launcher then ends the others,
    which wait for that. An error in another process alone is printed after the wait.
    """
    if rank():
        time.sleep(ERROR_DELAY)
    print(f"error{f' in process {rank()}' if rank() else ''}: {line}", file=sys.stderr)


_ended: list[Any] = []  # process groups


def end_training(accelerator: "Accelerator") -> None:
    """Call `accelerator.end_training()` without hanging at exit.

    A model in DistributedDataParallel is the last owner of its process group, and releases it while it holds the
    interpreter lock. The group's destructor waits for gloo's threads, and these wait for the lock to release their last
    tensors. A second reference, kept here until the process ends, prevents the deadlock.
    """
    import torch

    if torch.distributed.is_initialized():
        _ended.append(torch.distributed.group.WORLD)
    accelerator.end_training()
