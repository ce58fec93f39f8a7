"""Isolation of the current process: drop inherited state, then apply every kernel restriction."""

import fcntl
import os
import resource
import sys
from typing import NamedTuple

from training.sandbox import kernel, seccomp

FREE_DESCRIPTORS = 200  # above every descriptor that is open here
FIRST_CHANNEL = 3


class Isolation(NamedTuple):
    """The restrictions of an isolated process.

    Attributes:
        kind: "namespaces", "landlock" or "none".
        landlock: the descriptor that `kernel.open_landlock` returned.
        limits: of this process.
        scratch: bytes of files in /tmp.
    """

    kind: str
    landlock: int | None
    limits: kernel.ProcessLimits
    scratch: int


def drop_inherited_state(output: int, channels: list[int]) -> None:
    """Drop the descriptors, environment, arguments and terminal of the process that forked this one.

    Afterwards 0 is /dev/null as before, 1 and 2 are `output`, and the channels are 3, 4, ...
    """
    os.setsid()
    parked = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, FREE_DESCRIPTORS) for descriptor in (output, output, *channels)]
    for place, descriptor in enumerate(parked, start=1):
        os.dup2(descriptor, place)
    os.closerange(len(parked) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.environ.clear()
    sys.argv = ["program"]


def apply_isolation(isolation: Isolation) -> None:
    """Apply every restriction, in an order in which none blocks the next; the system-call filter is last.

    Raises:
        OSError: the kernel rejects one.
    """
    if isolation.kind == "namespaces":
        kernel.mount_scratch(isolation.scratch)
    if isolation.kind != "none":
        kernel.drop_privileges(become_nobody=isolation.kind == "namespaces" and os.geteuid() == 0)
    if isolation.landlock is not None:
        kernel.restrict_files(isolation.landlock)
        os.close(isolation.landlock)
    kernel.set_limits(isolation.limits)
    if isolation.kind != "none":
        seccomp.apply_filter(kernel.libc)
