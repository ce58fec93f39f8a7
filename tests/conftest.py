"""One small main job for all tests of whole commands."""

import shutil
from pathlib import Path

import pytest
from terminal import ROOT, SMALL, Terminal, flags


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
