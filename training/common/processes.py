"""One voice for the processes of a launcher: `RANK` in the environment says which of them this is, 0 the first."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

ERROR_DELAY = 5  # seconds


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """The number of this process on its own machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def cores_per_process() -> int:
    """Cores for each of the processes on this machine, at least one."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@contextlib.contextmanager
def rank_zero_stdout() -> Iterator[None]:
    """Only the first process prints. Any of them may still say on stderr what went wrong."""
    if rank() == 0:
        yield
    else:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield


def print_error(line: str) -> None:
    """Print an error.

    A mistake in the recipe is the same in every process: the first tells it, and its launcher then ends the others,
    which wait for that. What went wrong in another one alone is told after the wait.
    """
    if rank():
        time.sleep(ERROR_DELAY)
    print(f"error{f' in process {rank()}' if rank() else ''}: {line}", file=sys.stderr)


_ended: list[Any] = []  # process groups


def end_training(accelerator: "Accelerator") -> None:
    """Accelerate's, after which a process cannot hang.

    A model in DistributedDataParallel outlives the process group, as its last owner, and lets go of it while it holds
    the interpreter. The group's destructor waits for the threads of gloo, and these for the interpreter, where they
    still have tensors of the last exchange to let go of. So another owner stays here until the process ends.
    """
    import torch

    if torch.distributed.is_initialized():
        _ended.append(torch.distributed.group.WORLD)
    accelerator.end_training()
