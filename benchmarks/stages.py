"""Stages of the product, run as a user would."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def scratch(verb: str, options: dict[str, Any], threads: int = 0) -> float:
    """Run `scratch VERB --KEY=VALUE…`, on as many `threads` as it likes if 0; returns wall seconds.

    Raises:
        SystemExit: the stage failed, with what it said.
    """
    flags = [f"--{key}={value}" for key, value in options.items()]
    environment = os.environ | {"TQDM_DISABLE": "1"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "training", verb, *flags], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"scratch {verb} failed: {done.stderr.strip()}")
    return time.monotonic() - started
