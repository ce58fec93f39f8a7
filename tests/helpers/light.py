"""A command in a process that fails if the command imports a heavy library."""

import subprocess
import sys
from pathlib import Path

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
