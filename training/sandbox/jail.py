"""Isolation of a process: what the fork server drops once, and what each forked process drops before its program."""

import fcntl
import os
import resource
import sys
from typing import NamedTuple

from training.sandbox import kernel, restrictions, seccomp
from training.sandbox.restrictions import Step

# Descriptors of a process that is being isolated. Its program finds only the first of its channels open.
FIRST_CHANNEL, PROGRAM, PROBLEM, RULES = 3, 6, 7, 8
FIRST_FREE = 9


class Isolation(NamedTuple):
    """The restrictions of the processes that one server forks.

    Attributes:
        kind: "namespaces", "landlock" or "none".
        filter: the filter of system calls that a program gets beyond its server's.
    """

    kind: str
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
        restrictions.forgo_privileges(_as_nobody(kind))
        seccomp.Filter(seccomp.assemble_server(os.uname().machine)).install(kernel.libc)


def _as_nobody(kind: str) -> bool:
    """Whether programs must change to the user nobody: root's namespace has root's users."""
    return kind == "namespaces" and os.geteuid() == 0


def reserve_descriptors(descriptor: int) -> int:
    """Move a server's descriptor out of the way, and occupy those that its programs will have, so that none of its own
    is ever among them.

    Returns:
        The descriptor's new number.
    """
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
    os.close(descriptor)
    for place in range(FIRST_CHANNEL, FIRST_FREE):
        os.dup2(0, place)
    return moved


def place_descriptors(output: int, problem: int, program: int, channels: tuple[int, ...]) -> None:
    """Put the descriptors of a forked process where its program expects them: 1 and 2 are `output`, the channels are 3,
    4, ... The first of `program_steps` closes all others."""
    for place, descriptor in enumerate((output, output, *channels), start=1):
        os.dup2(descriptor, place)
    os.dup2(program, PROGRAM)
    os.dup2(problem, PROBLEM)


def program_steps(isolation: Isolation, limits: restrictions.ProcessLimits) -> list[Step]:
    """Steps of a forked process to isolate itself, in an order in which none blocks the next.

    Only the filter of system calls, the last restriction, is still to be installed then.
    """
    steps: list[Step] = [(os.closerange, (FIRST_FREE, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))]
    if isolation.kind != "none":
        steps += [*restrictions.drop_privileges(_as_nobody(isolation.kind)), restrictions.end_with_parent()]
    if isolation.kind == "landlock":
        steps.append(restrictions.restrict_files(RULES))
    return [*steps, (os.close, (RULES,)), *restrictions.set_limits(limits)]
