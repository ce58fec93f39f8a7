"""The package as a wheel, installed elsewhere: it brings the recipes, and `scratch run quickstart` works there."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from terminal import ROOT, SMALL, flags

PACKAGES = ("modeling_scratch", "training", "recipes")
# All stages in one process, which saves five seconds a stage.
RUN = """
import sys
from training import cli
from training.commands import run

def run_here(stage, path, rest):
    if "accelerate" in sys.modules:  # which keeps its first precision
        from accelerate.state import AcceleratorState, GradientState
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return cli.main([stage, "--config", str(path), *rest])

run.run_stage = run_here
raise SystemExit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def wheel(terminal, tmp_path_factory) -> Path:
    """Built from a copy of the repository, because a build leaves files beside the source."""
    place = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, place / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", "dist", "."]
    terminal.run([sys.executable, "-m", "pip", *build], place)
    (built,) = (place / "dist").glob("*.whl")
    return built


def test_it_holds_all_files(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        f"training/{path}" if path.parts[0] == "recipes" else str(path)
        for folder in PACKAGES
        for path in (file.relative_to(ROOT) for file in (ROOT / folder).rglob("*") if file.is_file())
        if "__pycache__" not in path.parts
    }
    assert names == files


def test_the_quickstart_runs_elsewhere(wheel, terminal, tmp_path):
    installed, here = tmp_path / "installed", tmp_path / "an empty folder"
    here.mkdir()
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", installed, wheel]
    terminal.run([sys.executable, "-m", "pip", *install], here)
    program = [sys.executable, "-c", RUN]
    done = terminal.run([*program, "run", "quickstart", *flags(SMALL)], here, PYTHONPATH=str(installed))
    assert "[7/7] export (recipes/quickstart/export.yaml)" in done.stdout
    assert "next: scratch prepare --config recipes/quickstart/prepare.yaml" in done.stdout
    assert "scratch complete runs/quickstart/pretrain 'def read_'" in done.stdout
    results = json.loads((here / "runs" / "quickstart" / "evaluate" / "results.json").read_text())
    assert "scratch_body_choice" in json.dumps(results) and not (here / "recipes").exists()
