"""Isolation of a process: what the fork server drops once, and what each forked process drops before its program."""

import fcntl
import os
import resource
import sys
from typing import NamedTuple

from training.sandbox import kernel, seccomp

FREE_DESCRIPTORS = 200  # above every descriptor that is open here
FIRST_CHANNEL = 3


class Isolation(NamedTuple):
    """The restrictions of the processes that one server forks.

    Attributes:
        kind: "namespaces", "landlock" or "none".
        landlock: the descriptor that `kernel.open_landlock` returned.
        filter: the filter of system calls that a program gets beyond its server's.
    """

    kind: str
    landlock: int | None
    filter: seccomp.Filter | None


def isolate_server(kind: str) -> None:
    """Drop what neither the server nor a program needs. Every forked process inherits this.

    Args:
        kind: of isolation, as in `Isolation`.

    Raises:
        OSError: the kernel rejects a restriction.
    """
    os.environ.clear()
    sys.argv = ["program"]
    if kind != "none":
        kernel.forgo_privileges(_as_nobody(kind))
        seccomp.Filter(seccomp.assemble_server(os.uname().machine)).install(kernel.libc)


def _as_nobody(kind: str) -> bool:
    """Whether programs must change to the user nobody: root's namespace has root's users."""
    return kind == "namespaces" and os.geteuid() == 0


def drop_inherited_descriptors(output: int, channels: list[int]) -> None:
    """Close the descriptors of the process that forked this one.

    Afterwards 0 is /dev/null as before, 1 and 2 are `output`, and the channels are 3, 4, ...
    """
    parked = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, FREE_DESCRIPTORS) for descriptor in (output, output, *channels)]
    for place, descriptor in enumerate(parked, start=1):
        os.dup2(descriptor, place)
    os.closerange(len(parked) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def isolate_program(isolation: Isolation, limits: kernel.ProcessLimits) -> None:
    """Apply every restriction, in an order in which none blocks the next; the system-call filter is last.

    Raises:
        OSError: the kernel rejects one.
    """
    if isolation.kind != "none":
        kernel.drop_privileges(_as_nobody(isolation.kind))
        kernel.end_with_parent()
    if isolation.landlock is not None:
        kernel.restrict_files(isolation.landlock)
        os.close(isolation.landlock)
    kernel.set_limits(limits)
    if isolation.filter is not None:
        isolation.filter.install(kernel.libc)
