"""Stages of the product, run as a user would."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """What a stage took.

    Attributes:
        seconds: from its start to its end.
        processor_seconds: of its process and those that it started.
        megabytes: resident memory of the largest of these processes, at most.
    """

    seconds: float
    processor_seconds: float
    megabytes: float


def cost(verb: str, options: dict[str, Any], threads: int = 0) -> Cost:
    """Run `scratch VERB --KEY=VALUE…`, on as many `threads` as it likes if 0; returns what it took.

    Raises:
        SystemExit: the stage failed, with what it said.
    """
    flags = [f"--{key}={value}" for key, value in options.items()]
    environment = os.environ | {"TQDM_DISABLE": "1"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-m", "training", verb, *flags]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"scratch {verb} failed: {errors.read().strip()}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return Cost(time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6)


def scratch(verb: str, options: dict[str, Any], threads: int = 0) -> float:
    """Run a stage as `cost` does; returns wall seconds."""
    return cost(verb, options, threads).seconds
