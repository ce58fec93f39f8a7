"""The benchmark of memory makes the text that it says, and sees what other processes have."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.data_memory import Watch, write_documents

CHILD = """
import pathlib, sys, time
first = b"x" * 60_000_000
time.sleep(0.5)
del first
pathlib.Path(sys.argv[1]).touch()
later = b"x" * 20_000_000
time.sleep(0.5)
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


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells the memory of processes there")
def test_the_watch_sees_the_memory_of_other_processes(tmp_path):
    with Watch(0.05, tmp_path / "turn") as watch:
        subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "turn")], check=True)
    first, later = watch.own
    assert 60e6 < first < 100e6 and 20e6 < later < 60e6 and watch.mapped > 0
