"""Commands answer at once: help, version, mistakes and an up-to-date run import no heavy library."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.cli import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "lm_eval", "matplotlib", "sklearn"}
PROGRAM = f"""
import sys
from training.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
found = {HEAVY!r} & sys.modules.keys()
assert not found, found
raise SystemExit(code)
"""


def imports_nothing_heavy(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "110"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert "AssertionError" not in done.stderr, done.stderr.splitlines()[-1]
    return done


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command):
    done = imports_nothing_heavy(command, "--help")
    assert done.returncode == 0 and len(done.stdout) > 200 and not done.stderr


@pytest.mark.parametrize("arguments, code", [(["--help"], 0), (["--version"], 0), (["pretrian"], 2), ([], 0)])
def test_questions_to_no_command(arguments, code):
    assert imports_nothing_heavy(*arguments).returncode == code


@pytest.mark.parametrize("command", ["tokenizer", "prepare", "pretrain", "classify", "evaluate", "export", "import"])
def test_mistakes_in_a_recipe(command):
    done = imports_nothing_heavy(command, "--output_dri", "x")
    assert done.returncode == 2
    assert done.stderr.startswith("error: command line: unknown key 'output_dri'; did you mean 'output_dir'?")


@pytest.mark.parametrize("command", ["tokenizer", "prepare", "pretrain", "classify", "evaluate", "export", "import"])
def test_a_printed_recipe(command):
    done = imports_nothing_heavy(command, "--print_config")
    assert done.returncode == 0 and "# output_dir:  (required)" in done.stdout
