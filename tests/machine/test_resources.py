"""What the machine has, read from made-up files of the system, and what others use of it, measured for real."""

import os
import subprocess
import sys
import time

import pytest

from training.machine import resources as machine
from training.machine.resources import Load, available_cores, busy_seconds, cores_per_process, quota, tree_seconds

BURN = "while True: pass"


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes files below a made-up /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "cgroup")

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


def test_no_files_no_quota(system):
    assert quota() is None
    assert available_cores() == len(machine.affinity())


def test_quota_of_version_2(system):
    system("proc/self/cgroup", "0::/user/session\n")
    system("cgroup/user/session/cpu.max", "max 100000\n")
    assert quota() is None
    system("cgroup/user/session/cpu.max", "250000 100000\n")
    assert quota() == 2.5
    system("cgroup/user/cpu.max", "150000 100000\n")  # a group above is tighter
    assert quota() == 1.5


def test_quota_inside_a_container(system):
    """The path is the host's, the group itself is mounted as the root."""
    system("proc/self/cgroup", "0::/docker/abc\n")
    system("cgroup/cpu.max", "50000 100000\n")
    assert quota() == 0.5
    assert available_cores() == 1


def test_processes_share_the_cores_that_affinity_and_quota_leave(system, monkeypatch):
    monkeypatch.setattr(machine, "affinity", lambda: set(range(8)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores_per_process() == 4
    system("proc/self/cgroup", "0::/\n")
    system("cgroup/cpu.max", "200000 100000\n")
    assert cores_per_process() == 1


def test_quota_of_version_1(system):
    system("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/batch\n")
    system("cgroup/cpu/batch/cpu.cfs_quota_us", "-1\n")
    system("cgroup/cpu/batch/cpu.cfs_period_us", "100000\n")
    assert quota() is None
    system("cgroup/cpu/batch/cpu.cfs_quota_us", "300000\n")
    assert quota() == 3


def test_busy_counts_the_processors_we_may_use(system, monkeypatch):
    monkeypatch.setattr(machine, "affinity", lambda: {0, 2})
    rows = [
        "cpu  0 0 0 0",
        "cpu0 100 20 30 999 999 5 5 7",
        "cpu1 1 1 1 1 1 1 1 1",
        "cpu2 40 0 0 999 999 0 0 7",
        "intr 5",
    ]
    system("proc/stat", "\n".join(rows))
    assert busy_seconds() == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))


def test_elsewhere_than_on_linux(system):
    """Without /proc nothing fails."""
    load = Load()
    assert load.others() >= 0
    assert tree_seconds(os.getpid()) > 0


@pytest.mark.skipif(not os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"), reason="a kernel without")
def test_own_children_are_ours():
    """Half a second of a child's own work appears in our tree, while it runs and when it has ended."""
    before = tree_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", BURN]) as child:
        deadline = time.monotonic() + 30
        while tree_seconds(os.getpid()) - before < 0.5 and time.monotonic() < deadline:
            time.sleep(0.05)
        running = tree_seconds(os.getpid())
        child.kill()
    assert running - before >= 0.5
    assert tree_seconds(os.getpid()) >= running


def test_others_are_what_is_busy_and_not_ours(monkeypatch):
    load = Load()
    monkeypatch.setattr(machine, "busy_seconds", lambda: load_busy + 3.0)
    monkeypatch.setattr(machine, "tree_seconds", lambda _: load_own + 2.0)
    load_busy, load_own = load.busy, load.own
    monkeypatch.setattr(machine.time, "monotonic", lambda: load_at + 2.0)
    load_at = load.read_at
    assert load.others() == pytest.approx(0.5)
