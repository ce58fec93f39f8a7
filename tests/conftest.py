"""How tests share the processor, and one small main job for all tests of whole commands."""

import os
import shutil
import sys
from pathlib import Path

# Several tests at a time share the cores. Before torch is imported, which counts its threads once. A fixed number, so
# that no test depends on what else runs.
share = (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import pytest  # noqa: E402
from terminal import ROOT, SMALL, Terminal, flags  # noqa: E402

# Files whose tests start launchers, which meet at one port of the machine.
LAUNCHING = (
    *("test_cluster.py", "test_gradients.py", "test_kill.py", "test_pretrain.py", "test_pretrain_data.py"),
    "test_sums.py",
)


def unit(nodeid: str) -> str:
    """What runs in one process: the tests of a file, for they share fixtures; or all whole commands, which share
    `quickstart_run`, with the launchers."""
    path = Path(nodeid.split("::")[0])
    return "commands" if "end_to_end" in path.parts or path.name in LAUNCHING else str(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """For `-n`. (`--dist loadgroup` is silently without effect under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False  # it takes the unit of the most tests for the longest one
    return ByUnit(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest unit first, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: unit(item.nodeid) != "commands")


@pytest.fixture(scope="module", autouse=True)
def no_accelerate_of_other_files() -> None:
    """Accelerate keeps its first precision and device for the life of a process, here that of many files."""
    if "accelerate" in sys.modules:
        from tiny_stages import forget_accelerate

        forget_accelerate()


@pytest.fixture
def fresh_accelerate():
    """Forgets Accelerate's precision and device after each test, for files whose tests want different ones."""
    from tiny_stages import forget_accelerate

    yield
    forget_accelerate()


@pytest.fixture
def place(outputs, tmp_path, monkeypatch) -> Path:
    """The current folder: a copy of what earlier stages left, the `outputs` of the test's file."""
    shutil.copytree(outputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def terminal(tmp_path_factory) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def quickstart_run(terminal, tmp_path_factory) -> Path:
    """A folder in which `scratch run recipes/quickstart` has run, with the sizes of `SMALL`, on this machine's Python.

    It holds `recipes` (a link to the repository's), `runs/quickstart` and `output.txt`, what the command printed. Made
    once a session, in about forty seconds: read it, or `copy_run` it to change something.
    """
    place = tmp_path_factory.mktemp("quickstart")
    (place / "recipes").symlink_to(ROOT / "recipes")
    done = terminal.scratch("run", "recipes/quickstart", *flags(SMALL), cwd=place)
    (place / "output.txt").write_text(done.stdout)
    return place


@pytest.fixture
def copy_run(quickstart_run, tmp_path):
    """A function that copies stages of `quickstart_run` to a place where a test may change them."""

    def copy(*stages: str) -> Path:
        (tmp_path / "recipes").symlink_to(ROOT / "recipes")
        for stage in stages:
            shutil.copytree(quickstart_run / "runs" / "quickstart" / stage, tmp_path / "runs" / "quickstart" / stage)
        return tmp_path

    return copy
