"""The sandbox as its users call it: `run_python`, limits, outcomes, and a pool of idle fork servers."""

import atexit
import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from training.common.errors import UserError
from training.sandbox import preload, seccomp
from training.sandbox.worker import Outcome, Worker

ISOLATIONS = ("namespaces", "landlock")  # the stronger first
# Imports a module that the server has not loaded, so it passes only if the standard library can be read.
TRIAL = "import this"


@dataclass(frozen=True)
class SandboxLimits:
    """The limits of a program. A solution and its tests are two processes, each with these limits.

    Attributes:
        cpu_seconds: processor time, in whole seconds.
        wall_seconds: elapsed time, longer than `cpu_seconds` because other programs need the processor too.
        memory: bytes of address space, of which Python itself takes 15 to 35 MB.
        scratch: bytes of all files in /tmp, which is in memory and the only writable folder.
        threads: number of threads at a time. There is only one process.
        output: bytes printed.
    """

    cpu_seconds: int = 3
    wall_seconds: float = 10.0
    memory: int = 512 << 20
    scratch: int = 16 << 20
    threads: int = 16
    output: int = 1 << 16


def run_python(
    program: str, limits: SandboxLimits = SandboxLimits(), tests: str | None = None, allow_unisolated: bool = False
) -> Outcome:
    """Run an untrusted program in an isolated process, and say whether it passed.

    Without `tests`, a program passes if it runs to its end in one process, its assertions included; a program can fake
    this (docs/sandbox.md). With `tests`, `program` is only the solution, and the tests run in a second process. There
    the solution's functions, plain values and modules have their names, but each call is answered by the first process,
    with a plain value. A false assertion stays false, whatever the solution does.

    Args:
        program: untrusted Python source. It can import the standard library, and no other package.
        tests: Python source that calls functions of `program`, with plain values only (see `values.PLAIN`).
        allow_unisolated: where the system offers no isolation, run the program with limits of time and memory only. It
            can then read and delete whatever you can.

    Raises:
        UserError: this system offers no isolation, and `allow_unisolated` is False.
    """
    kind = _isolation(allow_unisolated)
    request = {"program": program, "tests": tests, "limits": asdict(limits)}
    heavy = preload.imports_heavy(program, tests)
    for attempt in (1, 2):
        # The system may have killed a server or a waiting process, perhaps out of memory.
        with contextlib.suppress(EOFError, ConnectionError), _borrow(kind, heavy, new=attempt == 2) as worker:
            return worker.run(request)
    return Outcome(False, "killed", "the system killed the sandbox twice; it may be short of memory", "", 0.0)


def run_all(
    programs: Sequence[str],
    workers: int,
    limits: SandboxLimits = SandboxLimits(),
    tests: Sequence[str] | None = None,
    allow_unisolated: bool = False,
) -> list[Outcome]:
    """Outcomes of `run_python` for many programs, `workers` at a time, in the order of the programs.

    Args:
        tests: one for each program.

    Raises:
        ValueError: the numbers of programs and tests differ.
    """
    if tests is not None and len(tests) != len(programs):
        raise ValueError(f"{len(tests)} tests for {len(programs)} programs")
    _isolation(allow_unisolated)  # once, before the threads start
    with ThreadPoolExecutor(workers) as threads:
        run = functools.partial(_run_one, limits, allow_unisolated)
        return list(threads.map(run, programs, tests if tests is not None else [None] * len(programs)))


def _run_one(limits: SandboxLimits, allow_unisolated: bool, program: str, tests: str | None) -> Outcome:
    return run_python(program, limits, tests, allow_unisolated)


def check_isolation() -> str:
    """The isolation that this system offers, "namespaces" or "landlock". Takes a second or less, once per process.

    Raises:
        UserError: it offers neither.
    """
    found, refusals = _find_isolation()
    if found is None:
        raise UserError(
            f"this system offers no isolation for running a model's code ({'; '.join(refusals)}); run it on Linux, in "
            "a container that allows user namespaces or Landlock, or allow it to run unisolated (it can then read and "
            "delete your files)"
        )
    return found


def _isolation(allow_unisolated: bool) -> str:
    if allow_unisolated and sys.platform == "linux":  # nothing of it runs elsewhere
        return _find_isolation()[0] or "none"
    return check_isolation()


@functools.cache
def _find_isolation() -> tuple[str | None, list[str]]:
    """The strongest isolation in which a trial program passes, and why each stronger one failed."""
    refusals = []
    if sys.platform != "linux" or not seccomp.is_supported():
        return None, ["Linux on x86-64 or arm64 is needed"]
    for kind in ISOLATIONS:
        try:
            worker = Worker(kind)
            try:
                outcome = worker.run({"program": TRIAL, "tests": None, "limits": asdict(SandboxLimits())})
            finally:
                worker.close()
        except (OSError, EOFError, RuntimeError) as error:
            refusals.append(f"{kind}: {error or 'ended early'}")
            continue
        if outcome.passed:
            return kind, refusals
        refusals.append(f"{kind}: {outcome.detail}")
    return None, refusals


_lock = threading.Lock()
# By process, since the servers of a forked process answer its parent; by isolation; by whether they load heavy modules.
_idle: dict[tuple[int, str, bool], list[Worker]] = {}


@contextlib.contextmanager
def _borrow(isolation: str, heavy: bool, new: bool) -> Iterator[Worker]:
    """A worker for one caller, an idle one unless it must be new. It returns to the pool unless an exception was
    raised."""
    key = (os.getpid(), isolation, heavy)
    with _lock:
        waiting = _idle.setdefault(key, [])
        worker = waiting.pop() if waiting and not new else None
    worker = worker or Worker(isolation, heavy)
    healthy = False
    try:
        yield worker
        healthy = True
    finally:
        if healthy:
            with _lock:
                waiting.append(worker)
        else:
            worker.close()


@atexit.register
def _close_idle() -> None:
    for (process, *_), workers in _idle.items():
        if process == os.getpid():
            while workers:
                workers.pop().close()
