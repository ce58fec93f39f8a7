"""The fork server: one process behind all walls, which forks a new locked process for every program.

A program starts in the time of a fork, with Python and the usual modules already there, and still shares nothing with
the one before: its namespaces, its scratch folder and its memory are its own. The server never reads a program; a
supervisor, forked first, does, waits for the end or makes one, and reports. Started by `pool.Worker`.
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

from training.sandbox import cell, kernel
from training.sandbox.values import read_message, write_message

# What programs import most: theirs for free.
WARM = (
    "abc array base64 bisect calendar collections collections.abc copy dataclasses datetime decimal doctest enum "
    "fractions functools hashlib heapq inspect io itertools json logging math operator queue random re statistics "
    "string struct textwrap threading time traceback types typing unittest unicodedata uuid warnings zoneinfo"
).split()
PR_SET_PDEATHSIG = 1
OWN_PROCESSES = 6  # of the same user in the same namespace: server, supervisor, two cells, with some room
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # milliseconds
REPORT_ROOM = 1 << 16
REASONS = ("passed", "assertion", "error", "syntax", "exit", "memory", "gone")


def main(descriptor: int, isolation: str) -> None:
    """Serve programs until the other side closes.

    Args:
        descriptor: a socket; receives requests, sends outcomes, and first of all `{"refused": why or None}`.
        isolation: "namespaces", "landlock" or "none".
    """
    channel = socket.socket(fileno=descriptor)
    _warm_up()
    landlock = home = None
    try:
        if isolation == "namespaces":
            kernel.enter_namespaces()
            child = os.fork()
            if child:  # the namespace of processes begins with the child
                channel.close()
                os.waitpid(child, 0)
                return
            kernel.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            home = os.open("/proc/self/ns/pid", os.O_RDONLY)
            kernel.close_view()
        elif isolation == "landlock":
            landlock = kernel.open_landlock()
    except OSError as error:
        write_message(descriptor, {"refused": error.strerror or str(error)})
        return
    write_message(descriptor, {"refused": None})
    while channel.recv(1, socket.MSG_PEEK):
        supervisor = os.fork()
        if supervisor == 0:
            _serve(descriptor, isolation, landlock, home)
            os._exit(0)
        if os.waitpid(supervisor, 0)[1]:
            return  # the other side sees the end of the channel


def _warm_up() -> None:
    """Load what programs import, and every extension module: the libraries they need are not in the view."""
    names = list(WARM)
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
        ctypes.CDLL("libgcc_s.so.1")  # glibc looks for it when a thread ends
    except OSError:
        pass
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page


def _serve(descriptor: int, isolation: str, landlock: int | None, home: int | None) -> None:
    """Run one program, or one solution and its tests, and report how it ended."""
    request = read_message(descriptor)
    limits = request["limits"]
    threads = limits["threads"] + OWN_PROCESSES if isolation == "namespaces" and kernel.counts_by_namespace() else None
    process = kernel.ProcessLimits(limits["cpu_seconds"], limits["memory"], limits["scratch"], threads)
    lock = cell.Lock(isolation, landlock, process, limits["scratch"])
    nonce = os.urandom(16).hex()
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    fault, fault_end = os.pipe()
    if request["tests"] is None:
        solution = None
        judge = _fork(lock, home, fault_end, output_end, [report_end], cell.run_program, nonce, request["program"])
    else:
        calls, calls_end = os.pipe()
        answers, answers_end = os.pipe()
        ends = [answers_end, calls]
        solution = _fork(lock, home, fault_end, output_end, ends, cell.run_solution, request["program"])
        ends = [report_end, calls_end, answers]
        judge = _fork(lock, home, fault_end, output_end, ends, cell.run_tests, nonce, request["tests"])
        for end in (calls, calls_end, answers, answers_end):
            os.close(end)
    for end in (fault_end, output_end, report_end):
        os.close(end)
    if problem := os.read(fault, 1000).decode():
        write_message(descriptor, {"fault": problem})
        os._exit(1)  # what was forked goes with the namespace, or finds its pipes closed
    write_message(descriptor, _supervise(descriptor, judge, solution, nonce, output, report, limits))


def _fork(
    lock: cell.Lock, home: int | None, fault: int, output: int, channels: list[int], role: Any, *arguments: str
) -> int:
    """Start a cell, alone in a namespace of processes where there are such; `fault` hears of a lock that is open."""
    if home is not None:
        kernel.unshare(kernel.CLONE_NEWPID, "namespace of processes")
    process = os.fork()
    if process == 0:
        try:
            extra = [fault] if lock.landlock is None else [fault, lock.landlock]
            cell.leave_behind(output, [*channels, *extra])
            fault = 3 + len(channels)
            try:
                cell.lock_up(lock if lock.landlock is None else lock._replace(landlock=fault + 1))
            except OSError as error:
                os.write(fault, str(error).encode())
                os._exit(1)
            os.close(fault)
            role(*arguments)
        finally:
            os._exit(1)
    if home is not None:
        kernel.return_to(home)
    return process


def _supervise(
    descriptor: int, judge: int, solution: int | None, nonce: str, output: int, report: int, limits: dict[str, Any]
) -> dict[str, Any]:
    """Wait for the end of the judging process, for at most its time and its output; then end whatever still runs."""
    started = time.monotonic()
    deadline = started + limits["wall_seconds"]
    received = {output: b"", report: b""}
    room = {output: limits["output"], report: REPORT_ROOM}
    poll = select.poll()
    for source in (descriptor, output, report):
        poll.register(source, select.POLLIN)
    reporting, pause, stopped = True, SHORTEST_PAUSE, None
    while stopped is None:
        ended, status, usage = os.wait4(judge, os.WNOHANG)
        left = deadline - time.monotonic()
        if ended:
            break
        if left <= 0:
            stopped = "timeout"
        # A process that closed its channel is about to end; nothing tells of the moment.
        pause = min(2 * pause, LONGEST_PAUSE)
        for source, _ in poll.poll(1000 * max(0.0, left) if reporting else pause):
            if source == descriptor:
                _end(judge, solution)
                os._exit(1)  # nobody waits for the answer
            data = os.read(source, 1 << 16)
            received[source] += data
            if not data:
                poll.unregister(source)
                reporting = reporting and source != report
            elif len(received[source]) > room[source]:
                stopped = "output"
    solution_status = _end(None if stopped is None else judge, solution)
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


def _end(judge: int | None, solution: int | None) -> tuple[int, Any] | None:
    """Kill what is named, with all that it started where there are namespaces; how the solution had ended."""
    how = None
    for process in (judge, solution):
        if process is not None:
            try:
                os.killpg(process, signal.SIGKILL)
            except ProcessLookupError:
                os.kill(process, signal.SIGKILL)  # it had no time yet to open a group
            how = os.wait4(process, 0)[1:]
    return how


def _read_report(data: bytes, nonce: str) -> tuple[str, str] | None:
    """Reason and detail, if the report is whole and by the harness."""
    try:
        told, reason, detail = json.loads(data[4:])
    except (ValueError, TypeError):
        return None
    if told != nonce or reason not in REASONS:
        return None
    return reason, "".join(letter if letter.isprintable() else " " for letter in str(detail))


def _explain(status: int, usage: Any, limits: dict[str, Any]) -> tuple[str, str]:
    """Why a process ended that did not report."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return "exit", f"ended with status {code} before its last line"
    spent = usage.ru_utime + usage.ru_stime  # exact, while the limit is on a count of ticks, which may be far off
    if -code == signal.SIGXCPU or (-code == signal.SIGKILL and spent > limits["cpu_seconds"] / 2):
        return "timeout", f"stopped after {spent:.1f} s of processor time"
    if -code == signal.SIGKILL:
        return "killed", "by the system, which may be short of memory"
    return "crash", signal.Signals(-code).name
