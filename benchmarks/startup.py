"""Seconds until a command answers, beside an empty Python program.

    python -m benchmarks.startup [--rounds 5] [--run RECIPES]

Conditions first: the medians depend on the machine, on what else runs, and on whether the files are in memory already
(one unmeasured round sees to that). The contestants take turns, a round each. `--run` adds `scratch run RECIPES`, whose
output must be up to date in the current folder. The last line is JSON.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRATCH = ["-m", "training"]
CONTESTANTS = {
    "python -c pass": ["-c", "pass"],
    "scratch --help": [*SCRATCH, "--help"],
    "scratch --version": [*SCRATCH, "--version"],
    "unknown command": [*SCRATCH, "pretrian"],
}
COMMANDS = ("run", "tokenizer", "prepare", "pretrain", "sft", "dpo", "grpo", "classify", "evaluate", "export", "chat")


def seconds(arguments: list[str]) -> float:
    """Wall time of one Python process with these arguments."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured processes of each contestant")
    parser.add_argument("--run", metavar="RECIPES", help="recipe folder whose output is up to date")
    options = parser.parse_args()
    contestants = CONTESTANTS | {f"scratch {name} --help": [*SCRATCH, name, "--help"] for name in COMMANDS}
    if options.run:
        contestants[f"scratch run {options.run}"] = [*SCRATCH, "run", options.run]
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds + 1):
        for name, arguments in contestants.items():
            taken = seconds(arguments)
            if number:
                times[name].append(taken)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {options.rounds} rounds")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:<28} {median:6.2f} s   (fastest {min(times[name]):.2f}, slowest {max(times[name]):.2f})")
    print(json.dumps({name: round(median, 3) for name, median in medians.items()}))


if __name__ == "__main__":
    main()
