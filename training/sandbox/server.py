"""The fork server of the sandbox: an isolated process that forks a new isolated process for every program.

A program starts in the time of a fork, with Python and common modules already loaded. It shares nothing with the
program before it: namespaces, /tmp and memory are its own. The server never reads a program. For each request it forks
a supervisor, which reads the program, starts it, enforces the limits and reports the outcome. `pool.Worker` starts the
server.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from training.sandbox import jail, kernel, runners
from training.sandbox.values import read_message, write_message

# Modules that programs often import, loaded once by the server.
PRELOADED = (
    "abc array base64 bisect calendar collections collections.abc copy dataclasses datetime decimal doctest enum "
    "fractions functools hashlib heapq inspect io itertools json logging math operator queue random re statistics "
    "string struct textwrap threading time traceback types typing unittest unicodedata uuid warnings zoneinfo"
).split()
PR_SET_PDEATHSIG = 1
OWN_PROCESSES = 6  # of the same user in the same namespace: server, supervisor, two programs, and some to spare
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # milliseconds between checks of a process that is about to end
REPORT_BYTES = 1 << 16
READ_BYTES = 1 << 16
PROBLEM_BYTES = 1000
REASONS = ("passed", "assertion", "error", "syntax", "exit", "memory", "gone")


def main(descriptor: int, isolation: str) -> None:
    """Serve programs until the other side closes.

    Args:
        descriptor: a socket that receives requests and sends outcomes. The first message sent is
            `{"refused": reason}`, with None if this process is isolated.
        isolation: "namespaces", "landlock" or "none".
    """
    channel = socket.socket(fileno=descriptor)
    _preload()
    landlock = namespace = None
    try:
        if isolation == "namespaces":
            kernel.enter_namespaces()
            child = os.fork()
            if child:  # a new PID namespace begins with the child
                channel.close()
                os.waitpid(child, 0)
                return
            kernel.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
            kernel.replace_root()
        elif isolation == "landlock":
            landlock = kernel.open_landlock()
    except OSError as error:
        write_message(descriptor, {"refused": error.strerror or str(error)})
        return
    write_message(descriptor, {"refused": None})
    while channel.recv(1, socket.MSG_PEEK):
        supervisor = os.fork()
        if supervisor == 0:
            _serve(descriptor, isolation, landlock, namespace)
            os._exit(0)
        if os.waitpid(supervisor, 0)[1]:
            return  # the other side sees that the channel ended


def _preload() -> None:
    """Load common modules, and every extension module: their shared libraries cannot be read after isolation."""
    names = list(PRELOADED)
    for folder in sys.path:
        if Path(folder).name == "lib-dynload":
            names += [path.name.partition(".")[0] for path in Path(folder).glob("*.so")]
    for name in names:
        if not name.startswith(("_test", "_xx", "xx", "_tkinter")):
            try:
                importlib.import_module(name)
            except ImportError:  # a Python built without it
                continue
    try:
        ctypes.CDLL("libgcc_s.so.1")  # glibc loads it when a thread ends
    except OSError:
        pass
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page


def _serve(descriptor: int, isolation: str, landlock: int | None, namespace: int | None) -> None:
    """Run one program, or one solution and its tests, and send the outcome."""
    request = read_message(descriptor)
    limits = request["limits"]
    threads = limits["threads"] + OWN_PROCESSES if isolation == "namespaces" and kernel.counts_by_namespace() else None
    process = kernel.ProcessLimits(limits["cpu_seconds"], limits["memory"], limits["scratch"], threads)
    jailed = jail.Isolation(isolation, landlock, process, limits["scratch"])
    nonce = os.urandom(16).hex()
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    problem, problem_end = os.pipe()
    if request["tests"] is None:
        solution = None
        ends = [report_end]
        reporter = _fork(
            jailed, namespace, problem_end, output_end, ends, runners.run_program, nonce, request["program"]
        )
    else:
        calls, calls_end = os.pipe()
        answers, answers_end = os.pipe()
        ends = [answers_end, calls]
        solution = _fork(jailed, namespace, problem_end, output_end, ends, runners.run_solution, request["program"])
        ends = [report_end, calls_end, answers]
        reporter = _fork(jailed, namespace, problem_end, output_end, ends, runners.run_tests, nonce, request["tests"])
        for end in (calls, calls_end, answers, answers_end):
            os.close(end)
    for end in (problem_end, output_end, report_end):
        os.close(end)
    if failure := os.read(problem, PROBLEM_BYTES).decode():
        write_message(descriptor, {"problem": failure})
        os._exit(1)  # the forked processes end with the namespace, or find their pipes closed
    write_message(descriptor, _supervise(descriptor, reporter, solution, nonce, output, report, limits))


def _fork(
    isolation: jail.Isolation,
    namespace: int | None,
    problem: int,
    output: int,
    channels: list[int],
    runner: Any,
    *arguments: str,
) -> int:
    """Start a runner in an isolated process, alone in a PID namespace if there is one.

    Args:
        problem: a pipe that receives why isolation failed; the runner does not start then.
    """
    if namespace is not None:
        kernel.unshare(kernel.CLONE_NEWPID, "namespace of processes")
    process = os.fork()
    if process == 0:
        try:
            extra = [problem] if isolation.landlock is None else [problem, isolation.landlock]
            jail.drop_inherited_state(output, [*channels, *extra])
            problem = jail.FIRST_CHANNEL + len(channels)
            if isolation.landlock is not None:
                isolation = isolation._replace(landlock=problem + 1)
            try:
                jail.apply_isolation(isolation)
            except OSError as error:
                os.write(problem, str(error).encode())
                os._exit(1)
            os.close(problem)
            runner(*arguments)
        finally:
            os._exit(1)
    if namespace is not None:
        kernel.set_child_namespace(namespace)
    return process


def _supervise(
    descriptor: int, reporter: int, solution: int | None, nonce: str, output: int, report: int, limits: dict[str, Any]
) -> dict[str, Any]:
    """Wait until the reporting process ends or exceeds its time or output, then kill all that still runs.

    Returns:
        The outcome: reason, detail, output and seconds.
    """
    started = time.monotonic()
    deadline = started + limits["wall_seconds"]
    received = {output: b"", report: b""}
    room = {output: limits["output"], report: REPORT_BYTES}
    poll = select.poll()
    for source in (descriptor, output, report):
        poll.register(source, select.POLLIN)
    report_open, pause, stopped = True, SHORTEST_PAUSE, None
    while stopped is None:
        ended, status, usage = os.wait4(reporter, os.WNOHANG)
        left = deadline - time.monotonic()
        if ended:
            break
        if left <= 0:
            stopped = "timeout"
        # A process that closed its report is about to end, but no event signals when: check again soon.
        pause = min(2 * pause, LONGEST_PAUSE)
        for source, _ in poll.poll(1000 * max(0.0, left) if report_open else pause):
            if source == descriptor:
                _end(reporter, solution)
                os._exit(1)  # the caller has ended
            data = os.read(source, READ_BYTES)
            received[source] += data
            if not data:
                poll.unregister(source)
                report_open = report_open and source != report
            elif len(received[source]) > room[source]:
                stopped = "output"
    solution_status = _end(None if stopped is None else reporter, solution)
    seconds = time.monotonic() - started
    for source in (output, report):
        os.set_blocking(source, False)
        try:
            received[source] += os.read(source, room[source])
        except BlockingIOError:
            continue
    text = received[output][: room[output]].decode("utf-8", "replace")
    if stopped:
        reason, detail = stopped, f"stopped after {seconds:.1f} s"
    else:
        reason, detail = _read_report(received[report], nonce) or _explain(status, usage, limits)
        if reason == "gone":
            reason, detail = _explain(*solution_status, limits)
    return {"reason": reason, "detail": detail, "output": text, "seconds": seconds}


def _end(reporter: int | None, solution: int | None) -> tuple[int, Any] | None:
    """Kill these processes, with their groups; return status and usage of the solution."""
    ended = None
    for process in (reporter, solution):
        if process is not None:
            try:
                os.killpg(process, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(process, signal.SIGKILL)  # it has not started its group yet
            ended = os.wait4(process, 0)[1:]
    return ended


def _read_report(data: bytes, nonce: str) -> tuple[str, str] | None:
    """Reason and detail, if the report is complete and has the nonce."""
    try:
        reported_nonce, reason, detail = json.loads(data[4:])
    except (ValueError, TypeError):
        return None
    if reported_nonce != nonce or reason not in REASONS:
        return None
    return reason, "".join(letter if letter.isprintable() else " " for letter in str(detail))


def _explain(status: int, usage: Any, limits: dict[str, Any]) -> tuple[str, str]:
    """Reason and detail of a process that ended without a report."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return "exit", f"ended with status {code} before its last line"
    spent = usage.ru_utime + usage.ru_stime  # exact; the kernel's limit counts ticks, which may differ a lot
    if -code == signal.SIGXCPU or (-code == signal.SIGKILL and spent > limits["cpu_seconds"] / 2):
        return "timeout", f"stopped after {spent:.1f} s of processor time"
    if -code == signal.SIGKILL:
        return "killed", "by the system, which may be short of memory"
    return "crash", signal.Signals(-code).name
