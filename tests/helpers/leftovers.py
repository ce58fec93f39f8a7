"""Processes that outlive the tests that started them, which fails the session. They are known by a mark in their
environment, which also holds the name of the test."""

import contextlib
import os
import time
import uuid

import psutil
import pytest

MARK = "SCRATCH_TEST_SESSION"
PATIENCE = 15.0  # seconds in which what belongs to a process that has ended may end too
# Helpers of Python and torch, which end with the process that started them.
END_WITH_PARENT = ("resource_tracker", "multiprocessing.forkserver", "compile_worker")

if "PYTEST_XDIST_WORKER" not in os.environ:  # the processes of pytest-xdist inherit the mark
    os.environ[MARK] = uuid.uuid4().hex


def find_leftovers(mark: str) -> list[psutil.Process]:
    """The processes with this mark and those below this one, without this one and helpers whose parent lives."""
    found, below = [], set(psutil.Process().children(recursive=True))  # a fork without exec has no mark
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if process not in below and process.environ().get(MARK) != mark:
                continue
            helper = any(name in " ".join(process.cmdline()) for name in END_WITH_PARENT)
            if not (helper and _is_of_session(process.parent(), mark)):
                found.append(process)
        except (psutil.Error, OSError):  # it has ended, or belongs to somebody else
            continue
    return found


def _is_of_session(process: psutil.Process | None, mark: str) -> bool:
    return process is not None and (process.pid == os.getpid() or process.environ().get(MARK) == mark)


def end_leftovers(mark: str) -> list[str]:
    """Kill the processes that do not end by themselves; returns a line for each, with the test that started it."""
    deadline = time.monotonic() + PATIENCE
    while (found := find_leftovers(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = []
    for process in found:
        try:
            test = process.environ().get("PYTEST_CURRENT_TEST", "no test")
            command = " ".join(process.cmdline())
            process.kill()
        except psutil.Error:
            continue
        lines.append(f"{test} left process {process.pid} running: {command[:200]}")
        with contextlib.suppress(psutil.Error):
            process.wait(1)
    return lines


@pytest.hookimpl(trylast=True)  # pytest-xdist has ended its processes
def pytest_sessionfinish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for line in end_leftovers(os.environ[MARK]):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nERROR: {line}", red=True)
