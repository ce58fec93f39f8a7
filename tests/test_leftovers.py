"""A session of tests fails if a process that a test started outlives it."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from leftovers import MARK

HELPERS = Path(__file__).with_name("helpers")
CONFTEST = "import leftovers\nfrom leftovers import pytest_sessionfinish\nleftovers.PATIENCE = 2\n"
TESTS = """
import os, subprocess, sys, time
from multiprocessing import get_context

SLEEP = "import sys, time; print('ready', flush=True); time.sleep(100)"
PARENT = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)"

def test_waits():
    subprocess.run([sys.executable, "-c", "pass"])
    get_context("forkserver").Process(target=print).start()  # its server ends with this process

def test_leaves():
    {leaving}
"""
LEAVING = {
    "a child": "subprocess.Popen([sys.executable, '-c', SLEEP], stdout=subprocess.DEVNULL)",
    "a grandchild in a session of its own": "subprocess.run([sys.executable, '-c', PARENT, SLEEP])",
    "a fork": "if not os.fork(): os.dup2(os.open(os.devnull, 2), 1); time.sleep(100)",
    "nothing": "pass",
}


@pytest.mark.parametrize(
    "leaving, options",
    [("nothing", []), ("a grandchild in a session of its own", []), ("a child", ["-n1"]), ("a fork", [])],
)
def test_what_outlives_its_test_fails_the_session(tmp_path, leaving, options):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS.format(leaving=LEAVING[leaving]))
    ours = ("PYTEST", MARK)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, *options]
    environment |= {"PYTHONPATH": str(HELPERS), MARK: "another session, which this one is a part of"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert len(errors) == done.returncode == (leaving != "nothing"), done.stdout + done.stderr
    for error in errors:
        pid = int(error.split("left process ")[1].split()[0])
        test = "no test" if leaving == "a fork" else "test_it.py::test_leaves (call)"
        assert error.startswith(f"ERROR: {test}")
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(timeout=10)  # it was killed, and may not have ended yet


def test_a_session_within_a_session_has_its_own_mark():
    for worker, same in (({}, False), ({"PYTEST_XDIST_WORKER": "gw0"}, True)):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        command = [sys.executable, "-c", "import leftovers, os; print(os.environ[leftovers.MARK])"]
        environment |= {"PYTHONPATH": str(HELPERS), MARK: "outer", **worker}
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert (printed.strip() == "outer") is same
