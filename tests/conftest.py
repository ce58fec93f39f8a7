"""How tests share the processor, what belongs to which lane, and one small main job for all tests of whole commands."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Several tests at a time share the cores. Before torch is imported, which counts its threads once. A fixed number, so
# that no test depends on what else runs.
share = (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

from training.machine.threads import use_reproducible_products  # noqa: E402

# As `scratch` does: matrix products then have the same bits here and in the programs that tests start.
use_reproducible_products()

# A shell that starts the tests with `&` leaves SIGINT ignored, here and in all programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

import psutil  # noqa: E402
import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402
from hub_server import running_hub  # noqa: E402
from leftovers import pytest_sessionfinish  # noqa: E402, F401
from terminal import ROOT, SMALL, Terminal, flags  # noqa: E402

# Whole commands: processes that are started, killed and resumed, and other people's programs. `make check` leaves them
# out, `make test` runs them too.
WHOLE_COMMANDS = (
    "benchmarks",
    "commands",
    "conformance",
    "end_to_end",
    "fuzz",
)
# Files that take longest, in order, beside two workers. They start first, so that no worker is left alone with one in
# the end, and `make check` leaves them out too.
LONGEST_FIRST = (
    "end_to_end/test_readme.py",
    "end_to_end/test_stock_recipes.py",
    "conformance/test_conformance.py",
    "pretraining/test_cluster.py",
    "pretraining/test_kill.py",
    "end_to_end/test_faults.py",
    "engines/test_gguf.py",
    "end_to_end/test_quickstart.py",
    "end_to_end/test_stock_tools.py",
    "commands/prepare/test_prepare_engine.py",
    "modeling_scratch/test_conversion.py",
    "modeling_scratch/test_mutants.py",
    "modeling_scratch/test_generation.py",
    "pretraining/test_gradients.py",
    "end_to_end/test_talking.py",
    "commands/prepare/test_prepare_kill.py",
    "pretraining/test_resume.py",
    "end_to_end/test_hub.py",
    "eval/harness/test_tasks.py",
    "commands/test_classify.py",
    "commands/test_attention.py",
    "benchmarks/test_benchmark_gpu.py",
    "attention_page/test_attention_page.py",
    "commands/test_run.py",
    "commands/test_pretrain.py",
    "tuning/test_grpo.py",
    "sandbox/test_sandbox.py",
    "commands/test_sums.py",
    "commands/test_bad_input.py",
    "tuning/test_sft_kill.py",
    "commands/test_pretrain_data.py",
    "tuning/test_pipeline.py",
    "common/test_processes.py",
    "pretraining/test_loss_curve.py",
    "modeling_scratch/test_distributed_model.py",
)


MEMORY_OF_A_WORKER = 3 << 30  # bytes, with the programs that its tests start


def file_of(item: pytest.Item) -> str:
    """Path of an item's file below tests/, such as `data/test_loader.py`."""
    return str(item.path.relative_to(ROOT / "tests"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """For `-n auto`: one worker more than there are cores, as far as memory allows.

    Tests of whole commands wait for programs about a quarter of the time.
    """
    return max(1, min((os.cpu_count() or 1) + 1, psutil.virtual_memory().total // MEMORY_OF_A_WORKER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """For `-n`: the tests of a file run in one process, for they share fixtures; files start in the order of
    `pytest_collection_modifyitems`. (`--dist loadfile` would start with the files of the most tests.)"""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` leaves out, and put the longest files first."""
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    for item in items:
        file = file_of(item)
        if file.startswith(tuple(f"{folder}/" for folder in WHOLE_COMMANDS)) or file in rank:
            item.add_marker("slow")
    items.sort(key=lambda item: rank.get(file_of(item), len(rank)))


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


@pytest.fixture(scope="module")
def hub():
    """A server shaped like the Hub, for all tests of a file."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few hundred kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a disk takes root")
    yield folder
    gc.collect()  # an error that was caught may still hold the lock of its stage
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def terminal(tmp_path_factory) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path_factory.mktemp("home"))
    yield terminal
    terminal.close()


@pytest.fixture(scope="session")
def quickstart_run(terminal, tmp_path_factory) -> Path:
    """A folder in which `scratch run recipes/quickstart` has run, with the sizes of `SMALL`, on this machine's Python.

    It holds `recipes` (a link to the repository's), `runs/quickstart` and `output.txt`, what the command printed. Made
    once, in about forty seconds, for all processes that run tests: read it, or `copy_run` it to change something.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # which the processes share
    place = base / "quickstart"
    with FileLock(base / "quickstart.lock"):
        if not (place / "output.txt").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
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
