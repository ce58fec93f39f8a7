"""The caller's side of a fork server: starts it, gives it programs, limits them, and says how they ended."""

import array
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.sandbox.protocol import ENDED, PROBLEM, READY, START, STOP
from training.sandbox.values import write_request

ROOT = Path(__file__).resolve().parents[2]
SERVER = (
    "import sys; sys.path[0] = {root!r}; from training.sandbox.server import main; "
    "del sys.path[0]; main({descriptor}, {isolation!r}, {heavy!r})"
)
# Nothing of the caller's environment; a fixed hash seed, so that outcomes are reproducible; symbols resolved when a
# library is loaded, not by every forked process again.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", "LD_BIND_NOW": "1"}
CLOSE_SECONDS = 10  # before a server that does not end is killed
READ_BYTES = 1 << 16
PACKET_BYTES = 1000
MOST_ENDS = 4
REASONS = ("passed", "assertion", "error", "syntax", "exit", "memory", "gone")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a program.

    Attributes:
        passed: the program (with tests: the tests) ran to its last line without an exception.
        reason: "passed"; "assertion"; "error", any other exception; "syntax"; "exit", it exited before its last line;
            "timeout"; "memory"; "output"; "crash", a signal; "killed", by the system.
        detail: one line more, such as the exception.
        output: the printed text, at most `SandboxLimits.output` bytes.
        seconds: elapsed time.
    """

    passed: bool
    reason: str
    detail: str
    output: str
    seconds: float


class Worker:
    """A fork server (see `server`) that runs one program at a time.

    Args:
        isolation: "namespaces", "landlock" or "none".
        heavy: whether it loads `preload.HEAVY` too.

    Raises:
        OSError: the system does not offer this isolation.
        EOFError: the server ended at its start.
    """

    def __init__(self, isolation: str, heavy: bool = False):
        self.start, self.ends = b"", list[int]()  # of the processes that are ready, and the message they are ready for
        self.channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            code = SERVER.format(root=str(ROOT), descriptor=other.fileno(), isolation=isolation, heavy=heavy)
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,  # Ctrl-C goes to the caller only
                cwd="/",
                env=ENVIRONMENT,
            )
        try:
            answer = self._receive()
        except (EOFError, ConnectionError):
            self.close()
            raise
        if answer != READY:
            self.close()
            raise OSError(answer.decode())

    def run(self, request: dict[str, Any]) -> Outcome:
        """Run one request: `program`, `tests` and `limits`.

        Raises:
            EOFError, ConnectionError: the server ended, or a process was killed while it waited for its program.
            RuntimeError: a process could not be isolated.
        """
        program, tests, limits = request["program"], request["tests"], request["limits"]
        apart = tests is not None
        start = START.pack(limits["cpu_seconds"], limits["memory"], limits["scratch"], limits["threads"], apart)
        self.channel.send(start)
        if start != self.start or not self.ends:
            self._close_ends()
            self._receive()
            self.start = start
        (output, report, *programs), self.ends = self.ends, []
        started, unread = time.monotonic(), False
        nonce = os.urandom(16).hex()
        texts = [(program,), (nonce, tests)] if apart else [(nonce, program)]
        try:
            for place, own in zip(programs, texts, strict=True):
                try:
                    write_request(place, *own)
                except BrokenPipeError:  # it has ended; its status says why
                    unread = True
            printed, ended, stopped = self._supervise(output, started + limits["wall_seconds"], limits["output"])
            seconds = time.monotonic() - started
            printed += _read_rest(output)
            reported = _read_rest(report)
        finally:
            for descriptor in (output, report, *programs):
                os.close(descriptor)
        if len(printed) > limits["output"]:
            stopped = "output"
        if stopped:
            reason, detail = stopped, f"stopped after {seconds:.1f} s"
        else:
            *solution, reporter = ENDED.iter_unpack(ended)
            reason, detail = _read_report(reported, nonce) or _explain(*reporter, limits)
            if reason == "gone":
                reason, detail = _explain(*solution[0], limits)
        if unread and reason == "killed":
            raise EOFError
        text = printed[: limits["output"]].decode("utf-8", "replace")
        return Outcome(reason == "passed", reason, detail, text, seconds)

    def _supervise(self, output: int, deadline: float, room: int) -> tuple[bytes, bytes, str | None]:
        """Wait until the server says that all has ended, and stop what exceeds its time or output.

        Returns:
            What was printed, what the server said, and why the program was stopped.
        """
        printed, stopped = b"", None
        poll = select.poll()
        for source in (output, self.channel.fileno()):
            poll.register(source, select.POLLIN)
        while stopped is None:
            ready = {source for source, _ in poll.poll(max(0.0, 1000 * (deadline - time.monotonic())))}
            if self.channel.fileno() in ready:
                break
            if output in ready:
                data = os.read(output, READ_BYTES)
                printed += data
                if not data:
                    poll.unregister(output)
            if len(printed) > room:
                stopped = "output"
            elif time.monotonic() >= deadline:
                stopped = "timeout"
        if stopped:
            self.channel.send(STOP)
        return printed, self._receive(), stopped

    def _receive(self) -> bytes:
        """The server's next message. The descriptors that come with it are kept for the next program."""
        ends = array.array("i")
        size = socket.CMSG_SPACE(MOST_ENDS * ends.itemsize)
        message, ancillary, _, _ = self.channel.recvmsg(PACKET_BYTES, size, socket.MSG_CMSG_CLOEXEC)
        if not message:
            raise EOFError
        if message.startswith(PROBLEM):
            raise RuntimeError(f"isolation failed, so no program runs: {message.removeprefix(PROBLEM).decode()}")
        for _, _, data in ancillary:
            ends.frombytes(data)
        self.ends = list(ends)
        return message

    def _close_ends(self) -> None:
        for descriptor in self.ends:
            os.close(descriptor)
        self.ends = []

    def close(self) -> None:
        """End the server and every process that it started."""
        self._close_ends()
        self.channel.close()
        try:
            self.process.wait(timeout=CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _read_rest(descriptor: int) -> bytes:
    """The rest of a pipe whose writers have ended."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return b""


def _read_report(data: bytes, nonce: str) -> tuple[str, str] | None:
    """Reason and detail, if the report is complete and has the nonce."""
    reported_nonce, _, rest = data.decode("utf-8", "replace").partition("\n")
    reason, complete, detail = rest.partition("\n")
    if reported_nonce != nonce or not complete or reason not in REASONS:
        return None
    return reason, "".join(letter if letter.isprintable() else " " for letter in detail)


def _explain(status: int, spent: float, limits: dict[str, Any]) -> tuple[str, str]:
    """Reason and detail of a process that ended without a report, after `spent` seconds of processor time."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return "exit", f"ended with status {code} before its last line"
    # `spent` is exact; the kernel's limit counts ticks, which may differ a lot
    if -code == signal.SIGXCPU or (-code == signal.SIGKILL and spent > limits["cpu_seconds"] / 2):
        return "timeout", f"stopped after {spent:.1f} s of processor time"
    if -code == signal.SIGKILL:
        return "killed", "by the system, which may be short of memory"
    return "crash", signal.Signals(-code).name
