"""Messages that quote long names, line ends and control characters stay one short line."""

import errno
import os

import pytest
import torch

from training.cli import explain
from training.common.errors import UserError

LONG = "a" * 50_000


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), LONG),
        PermissionError(errno.EACCES, "denied", LONG),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), LONG),
        OSError(errno.EIO, os.strerror(errno.EIO)),  # of a read from an open file, without its name
    ],
    ids=["too long", "permission", "full disk", "broken disk"],
)
def test_failures_of_the_machine(error):
    assert len(explain(error)) < 4100


def test_mistakes():
    message = str(UserError(f"'key': {LONG} cannot be read; check it"))
    assert len(message) < 4100 and message.startswith("'key': aaa") and message.endswith("aaa cannot be read; check it")
    assert str(UserError("a\nb\x1b")) == r"a\nb\x1b"


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(2**58), lambda: bytearray(2**60)], ids=["torch", "python"]
)
def test_memory_that_runs_out(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert explain(caught.value).startswith("out of memory")
    assert "GB" in explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GB. GPU 0 ..."))
