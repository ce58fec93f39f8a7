"""The benchmark of memory makes the text that it says, and sees what other processes have."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.data_memory import write_documents

ROOT = Path(__file__).parents[2]
KNOWN = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells the memory of processes there"
)

# In a process of its own, since it sees all that its process ever started.
PROGRAM = """
import pathlib, subprocess, sys
from benchmarks.data_memory import Watch
CHILD = '''
import pathlib, sys, time
first = b"x" * 60_000_000
time.sleep(1.5)
del first
pathlib.Path(sys.argv[1]).touch()
later = b"x" * 20_000_000
time.sleep(1.5)
'''
with Watch(0.05, pathlib.Path(sys.argv[1])) as watch:
    subprocess.run([sys.executable, "-c", CHILD, sys.argv[1]], check=True)
print(*watch.own, watch.mapped)
"""


def texts(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_documents_are_the_same_every_time_and_some_nearly_the_same(tmp_path):
    for name, size in (("long", 2e6), ("again", 2e6), ("short", 1e6)):
        count = write_documents(tmp_path / name, size, words_of_each=20, copies=0.2, seed=0)
        made = texts(tmp_path / name)
        assert len(made) == count and size <= sum(map(len, made)) < size + 100_000
    long, again, short = (texts(tmp_path / name) for name in ("long", "again", "short"))
    assert long == again and long[: len(short)] == short
    beginnings = [text[:60] for text in long]
    assert 0.1 < 1 - len(set(beginnings)) / len(long) < 0.2  # copies, of which the short ones are often exact
    assert len(set(beginnings)) < len(set(long)) < len(long)


@KNOWN
def test_the_watch_sees_the_memory_of_other_processes(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "turn")]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    first, later, mapped = map(int, told.split())
    assert 60e6 < first < 100e6 and 20e6 < later < 60e6 and mapped > 0


@pytest.mark.release
@KNOWN
def test_the_benchmark_tells_both_passes_apart(tmp_path):
    command = [sys.executable, "-m", "benchmarks.data_memory", "--megabytes", "0.5", f"--folder={tmp_path}"]
    done = subprocess.run([*command, "--workers=1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (measured,) = json.loads(done.stdout.splitlines()[-1])["runs"]
    assert measured["first_pass_megabytes"] > 50 and measured["later_megabytes"] > 50 and measured["documents"] > 100
