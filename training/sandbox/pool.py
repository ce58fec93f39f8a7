"""The caller's side: limits, outcomes, and fork servers kept warm between calls."""

import atexit
import contextlib
import functools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from training.common.errors import UserError
from training.sandbox import seccomp
from training.sandbox.values import read_message, write_message

ROOT = Path(__file__).resolve().parents[2]
START = (
    "import sys; sys.path[0] = {root!r}; from training.sandbox.server import main; "
    "del sys.path[0]; main({descriptor}, {isolation!r})"
)
ISOLATIONS = ("namespaces", "landlock")  # the stronger first
# Imports something that no server has loaded: the standard library is in the view and readable.
TRIAL = "import this"


@dataclass(frozen=True)
class Limits:
    """What a program may use. A solution and its tests are two processes with these limits each.

    Attributes:
        cpu_seconds: processor time, whole seconds.
        wall_seconds: time on the clock, longer than `cpu_seconds` since other programs want the processor as well.
        memory: bytes of address space; Python itself takes about 80 MB of them.
        scratch: bytes of files in /tmp, the only folder that can be written, in memory too; also of a single file.
        threads: at the same time. There is one process only.
        output: bytes printed.
    """

    cpu_seconds: int = 3
    wall_seconds: float = 10.0
    memory: int = 512 << 20
    scratch: int = 16 << 20
    threads: int = 16
    output: int = 1 << 16


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        passed: it ran to its last line and nothing was raised (with tests: the tests did).
        reason: "passed"; "assertion"; "error", any other exception; "syntax"; "exit", it left before its last line;
            "timeout"; "memory"; "output"; "crash", a signal; "killed", by the system.
        detail: one line more, such as the exception.
        output: what it printed, at most `Limits.output` bytes.
        seconds: on the clock.
    """

    passed: bool
    reason: str
    detail: str
    output: str
    seconds: float


def run_python(
    program: str, limits: Limits = Limits(), tests: str | None = None, allow_unisolated: bool = False
) -> Outcome:
    """Run a program in a process of its own that can reach nothing.

    Without `tests`, passing means that the program as a whole ran to its end, asserts and all, in one process: a
    program that wants to look as if it did can (docs/sandbox.md). With `tests`, `program` is only the solution. The
    tests run in a second process, in which its functions, plain values and modules have their names, but a call goes
    to the first process and comes back as a plain value: a false assertion stays false, whatever the solution does.

    Args:
        program: Python source, as untrusted as can be. The standard library is there, other packages are not.
        tests: Python source that calls what `program` defines, by plain values only (see `values.PLAIN`).
        allow_unisolated: where the system offers no isolation, run it all the same, within limits of time and memory:
            it can then read and delete whatever you can.

    Raises:
        UserError: no isolation here, and not told otherwise.
    """
    kind = _isolation(allow_unisolated)
    request = {"program": program, "tests": tests, "limits": asdict(limits)}
    for attempt in ("first", "second"):
        with _borrow(kind) as worker:
            with contextlib.suppress(EOFError, ConnectionError):  # the system ended the server: short of memory, say
                return worker.run(request)
    return Outcome(False, "killed", "the sandbox itself was ended twice; the system may be short of memory", "", 0.0)


def run_all(
    programs: Sequence[str],
    workers: int,
    limits: Limits = Limits(),
    tests: Sequence[str] | None = None,
    allow_unisolated: bool = False,
) -> list[Outcome]:
    """`run_python` on many programs, `workers` at a time; outcomes in the order of the programs.

    Args:
        tests: one for each program.

    Raises:
        ValueError: not as many tests as programs.
    """
    if tests is not None and len(tests) != len(programs):
        raise ValueError(f"{len(tests)} tests for {len(programs)} programs")
    _isolation(allow_unisolated)  # once, before threads ask
    with ThreadPoolExecutor(workers) as threads:
        run = functools.partial(_run_one, limits, allow_unisolated)
        return list(threads.map(run, programs, tests if tests is not None else [None] * len(programs)))


def _run_one(limits: Limits, allow_unisolated: bool, program: str, tests: str | None) -> Outcome:
    return run_python(program, limits, tests, allow_unisolated)


def check_isolation() -> str:
    """Which walls this system offers: "namespaces" or "landlock". A second or less, once a process.

    Raises:
        UserError: none.
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
    if allow_unisolated:
        return _find_isolation()[0] or "none"
    return check_isolation()


@functools.cache
def _find_isolation() -> tuple[str | None, list[str]]:
    """The strongest isolation in which a trial passes, and why each stronger one does not."""
    refusals = []
    if sys.platform != "linux" or not seccomp.is_supported():
        return None, ["Linux on x86-64 or arm64 is needed"]
    for kind in ISOLATIONS:
        try:
            worker = Worker(kind)
            try:
                outcome = worker.run({"program": TRIAL, "tests": None, "limits": asdict(Limits())})
            finally:
                worker.close()
        except (OSError, EOFError, RuntimeError) as error:
            refusals.append(f"{kind}: {error or 'ended early'}")
            continue
        if outcome.passed:
            return kind, refusals
        refusals.append(f"{kind}: {outcome.detail}")
    return None, refusals


class Worker:
    """A fork server of its own, see `server`, running one program at a time.

    Raises:
        OSError: it cannot be isolated as asked.
    """

    def __init__(self, isolation: str):
        self.channel, other = socket.socketpair()
        with other:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-s",
                    "-S",
                    "-c",
                    START.format(root=str(ROOT), descriptor=other.fileno(), isolation=isolation),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,  # Ctrl-C is for the caller
                cwd="/",
                # Nothing of the caller's; a fixed order of sets, so that a verdict can be repeated.
                env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        refused = read_message(self.channel.fileno())["refused"]
        if refused:
            self.close()
            raise OSError(refused)

    def run(self, request: dict) -> Outcome:
        """
        Raises:
            EOFError, ConnectionError: the server ended.
            RuntimeError: a lock that did not close; nothing was run.
        """
        write_message(self.channel.fileno(), request)
        answer = read_message(self.channel.fileno())
        if "fault" in answer:
            raise RuntimeError(f"the sandbox could not be locked: {answer['fault']}")
        return Outcome(passed=answer["reason"] == "passed", **answer)

    def close(self) -> None:
        """End the server and all that it started."""
        self.channel.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_lock = threading.Lock()
_idle: dict[tuple[int, str], list[Worker]] = {}  # by process, since a fork's servers answer its parent


@contextlib.contextmanager
def _borrow(isolation: str) -> Iterator[Worker]:
    """A worker nobody else uses; it goes back only if all went well."""
    key = (os.getpid(), isolation)
    with _lock:
        waiting = _idle.setdefault(key, [])
        worker = waiting.pop() if waiting else None
    worker = worker or Worker(isolation)
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
    for (process, _), workers in _idle.items():
        if process == os.getpid():
            while workers:
                workers.pop().close()
