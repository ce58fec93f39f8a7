"""Seconds of `scratch evaluate` against the stock lm_eval program, on the same tasks, items and model folder.

    python -m benchmarks.evaluation MODEL DATA_DIR              # 200 items of each task, about three minutes
    python -m benchmarks.evaluation MODEL DATA_DIR --limit 0 --batch_size 4 16 --rounds 3    # all items

DATA_DIR holds the data of the tasks (docs/evaluation.md); `small` needs BLiMP's agreement and LAMBADA. Both are whole
commands, from the start of Python to the results; a first, unmeasured round of ours writes the task files that
`lm_eval --model hf --include_path` reads. They take turns, a round each. On one thread (OMP_NUM_THREADS=1) the
processor time of the command is measured, which other programs disturb little; on several, wall time. The last line is
JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import conditions
from training.eval.harness.suites import expand


def seconds_of(command: list[str], wall: bool) -> float:
    """Seconds that a command takes; processor time of the command and its own children unless `wall`."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    completed = subprocess.run(command, capture_output=True, text=True)
    if completed.returncode:
        sys.exit(f"{' '.join(command)}\n{completed.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if wall:
        return time.perf_counter() - started
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model")
    parser.add_argument("data_dir", help="folder with the data of the tasks")
    parser.add_argument("--tasks", nargs="+", default=["small"])
    parser.add_argument("--batch_size", type=int, nargs="+", default=[16], help="of both programs")
    parser.add_argument("--limit", type=int, default=200, help="items of each task; 0: all")
    parser.add_argument("--rounds", type=int, default=2, help="measured rounds of each contestant")
    options = parser.parse_args()
    wall = torch.get_num_threads() > 1
    found = conditions(torch.device("cpu")) | {
        "load": round(os.getloadavg()[0], 1),
        "wall": wall,
        "limit": options.limit,
    }
    print(", ".join(f"{name} {value}" for name, value in found.items()))
    with tempfile.TemporaryDirectory() as folder:

        def ours(batch_size: int) -> list[str]:
            output = Path(folder) / f"ours{len(list(Path(folder).iterdir()))}"  # a new one: nothing is up to date
            limit = [f"--limits.tasks={options.limit}"] if options.limit else []
            return [
                *(sys.executable, "-m", "training", "evaluate", f"--models={{model: {options.model}}}"),
                *(f"--tasks=[{', '.join(options.tasks)}]", f"--data_dir={options.data_dir}"),
                *(f"--output_dir={output}", f"--batch_size={batch_size}", *limit),
            ]

        def stock(batch_size: int) -> list[str]:
            limit = [f"--limit={options.limit}"] if options.limit else []
            return [
                *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"),
                *("--model_args", f"pretrained={options.model},trust_remote_code=True"),
                *("--include_path", f"{folder}/ours0/tasks", "--tasks", ",".join(expand(options.tasks))),
                *("--batch_size", str(batch_size), *limit),
            ]

        seconds_of(ours(options.batch_size[0]), wall)
        contestants = [(name, size) for size in options.batch_size for name in ("lm_eval", "scratch evaluate")]
        seconds: dict[tuple[str, int], list[float]] = {contestant: [] for contestant in contestants}
        for _ in range(options.rounds):
            for name, size in contestants:
                command = stock(size) if name == "lm_eval" else ours(size)
                seconds[name, size].append(seconds_of(command, wall))
    medians = {}
    for (name, size), measured in seconds.items():
        median, spread = statistics.median(measured), f"({min(measured):.2f} to {max(measured):.2f})"
        medians[f"{name}, {size}"] = round(median, 2)
        print(f"batch_size {size:<3} {name:<17} {median:7.2f} s  {spread}")
    print(json.dumps({"conditions": found, "seconds": medians}))


if __name__ == "__main__":
    main()
