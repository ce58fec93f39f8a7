"""Restrictions that a process puts on itself, as steps: privileges, files, limits."""

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

from training.sandbox.kernel import NOBODY, call, libc

# A call of the operating system with its arguments. A forked process copies a page for almost every object that it
# looks at, so these calls are looked up, and their arguments made, before the fork.
Step = tuple[Callable[..., Any], tuple[Any, ...]]

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
LAST_CAPABILITY = 63
CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_NO_CAPABILITIES = (
    ctypes.byref((ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)),
    ctypes.byref((ctypes.c_uint32 * 6)()),
)
LANDLOCK_RESTRICT_SELF = 446
OPEN_FILES = 64


class ProcessLimits(NamedTuple):
    """Limits of one process, in seconds and bytes."""

    cpu_seconds: int
    memory: int
    file_size: int
    threads: int | None  # None: not limited


def take_steps(steps: list[Step]) -> None:
    """Take steps.

    Raises:
        OSError: one fails.
    """
    for function, arguments in steps:
        if function(*arguments) == -1:
            code = ctypes.get_errno()
            raise OSError(code, f"{function.__name__}: {os.strerror(code)}")


def forgo_privileges(become_nobody: bool) -> None:
    """Drop every way to gain a capability, permanently, for this process and those it forks. It keeps those it has.

    Args:
        become_nobody: also leave all groups but one; only root can.
    """
    call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails without CAP_SETPCAP, when there is nothing to drop
    if become_nobody:
        os.setgroups([])


def drop_privileges(become_nobody: bool) -> list[Step]:
    """Drop every capability, after `forgo_privileges`.

    Args:
        become_nobody: also change to the user nobody; only root can.
    """
    ids = (NOBODY, NOBODY, NOBODY)
    users = [(os.setresgid, ids), (os.setresuid, ids)] if become_nobody else []
    return [*users, (libc.syscall, (CAPSET[os.uname().machine], *_NO_CAPABILITIES))]


def end_with_parent() -> Step:
    """Kill this process when its parent ends; after `drop_privileges`, which would cancel it."""
    return libc.prctl, (PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def restrict_files(rules: int) -> Step:
    """Allow only what the rules of `open_landlock` allow, from now on; after `drop_privileges`."""
    return libc.syscall, (LANDLOCK_RESTRICT_SELF, rules, 0)


def set_limits(process: ProcessLimits) -> list[Step]:
    """Set soft and hard limits, none above the present hard limit."""
    limits = {
        resource.RLIMIT_CPU: process.cpu_seconds,
        resource.RLIMIT_AS: process.memory,
        resource.RLIMIT_FSIZE: process.file_size,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if process.threads is not None:
        limits[resource.RLIMIT_NPROC] = process.threads
    steps = []
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        steps.append((resource.setrlimit, (kind, (value, value))))
    return steps
