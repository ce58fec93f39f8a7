"""Threads beside a busy program: a small training alone, beside one in the same session, and in another session.

    python -m benchmarks.threads
    python -m benchmarks.threads --rounds 5 --seconds 10

The training is the step of the small mark of `benchmarks.shakespeare`, by the real loop: 0.9M parameters, 12 x 64
tokens, Muon. Its contestants: threads that follow the load (`training.machine.threads`), all cores (OMP_NUM_THREADS),
and one thread. The busy program is an endless loop in Python. Linux schedules sessions against each other where
/proc/sys/kernel/sched_autogroup_enabled is 1, and single threads otherwise.

Contestants wait in processes of their own and take turns; reported are medians over the rounds of the median step of a
turn, without its first second, in which following settles. Needs an idle machine. The last line is all of it as JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.machine.resources import Load, available_cores, processor_name
from training.machine.threads import follow_load, use_reproducible_products

CONTESTANTS = {"following": None, "all cores": available_cores(), "one thread": 1}
SITUATIONS = ("alone", "same session", "another session")
SETTLING = 1.0  # seconds
FEWEST_STEPS = 4  # of a turn, however long they take
# Ends with the process that started it, however that ends.
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(10**6): pass"
TEXT = ("argparse.py", "typing.py", "inspect.py", "subprocess.py", "tarfile.py", "turtle.py", "pickletools.py")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant in each situation")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a turn in seconds")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # the folder of shards: be a contestant
    return parser.parse_args()


def make_shards(folder: Path) -> None:
    """Tokenizer and shards of recipes/shakespeare, from some files of Python's standard library."""
    from benchmarks import shakespeare

    library = Path(sysconfig.get_path("stdlib"))
    text = folder / "input.txt"
    text.write_text("".join((library / name).read_text(encoding="utf-8") for name in TEXT))
    shakespeare.make_shards(folder, text)


def work(folder: Path) -> None:
    """A contestant: trains for as long as each line of stdin says, and answers with the milliseconds of its steps."""
    use_reproducible_products()
    from types import SimpleNamespace

    from benchmarks.shakespeare import SMALL, recipe
    from training.model_io.tokenizers import open_tokenizer
    from training.pretraining.accelerator import build_accelerator
    from training.pretraining.config import PretrainConfig
    from training.pretraining.loop import Pretrainer
    from training.stages.flags import apply_overrides
    from training.stages.recipe import build
    from training.stages.yaml_values import read_yaml

    paths = {"data": folder / "data", "tokenizer": folder / "tokenizer", "output_dir": folder / f"run-{os.getpid()}"}
    options = {key: str(value) for key, value in (recipe("pretrain", SMALL) | paths).items()}
    values = apply_overrides(read_yaml(options.pop("config")), options | {"max_steps": "1000000"})
    config = build(PretrainConfig, values, "benchmark")
    tokenizer = open_tokenizer(config.tokenizer, "tokenizer")
    pretrainer = Pretrainer(config, folder / "nowhere", tokenizer, build_accelerator(config))
    pretrainer.log = SimpleNamespace(incident=lambda *_, **__: None)
    for _ in range(3):
        pretrainer.train_step()
    print("ready", flush=True)
    for line in sys.stdin:
        ends, steps = time.monotonic() + float(line), []
        while time.monotonic() < ends or len(steps) < FEWEST_STEPS:
            started = time.monotonic()
            follow_load()
            pretrainer.train_step()
            steps.append(1000 * (time.monotonic() - started))
        print(json.dumps(steps), flush=True)


@contextmanager
def contestants(folder: Path) -> Iterator[dict[str, subprocess.Popen]]:
    """The processes, ready and waiting."""
    processes = {}
    try:
        for name, threads in CONTESTANTS.items():
            environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
            environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
            command = [sys.executable, "-m", "benchmarks.threads", "--worker", str(folder)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes[name] = subprocess.Popen(command, env=environment, **pipes)
            while (line := processes[name].stdout.readline()).strip() != "ready":
                if not line:
                    raise SystemExit(f"the process of '{name}' ended")
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


@contextmanager
def busy_program(situation: str) -> Iterator[None]:
    """An endless loop, unless the situation is `alone`."""
    if situation == "alone":
        yield
        return
    command = [sys.executable, "-c", BUSY]
    loop = subprocess.Popen(command, start_new_session=situation == "another session")
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def turn(process: subprocess.Popen, situation: str, seconds: float) -> dict[str, float]:
    """Milliseconds: the median step of one turn once it has settled, and its slowest step."""
    with busy_program(situation):
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        steps = json.loads(process.stdout.readline())
    passed, settled = 0.0, []
    for step in steps:
        passed += step / 1000
        if passed > SETTLING:
            settled.append(step)
    return {"step": statistics.median(settled or steps), "slowest": max(steps), "steps": len(steps)}


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        work(arguments.worker)
        return
    load = Load()
    time.sleep(1)
    others = load.others()
    turns: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        make_shards(Path(temporary))
        with contestants(Path(temporary)) as processes:
            for _ in range(arguments.rounds):
                for situation in SITUATIONS:
                    for name, process in processes.items():
                        turns.setdefault((name, situation), []).append(turn(process, situation, arguments.seconds))
    medians = {key: statistics.median(each["step"] for each in rows) for key, rows in turns.items()}
    alone = medians["all cores", "alone"]
    autogroup = Path("/proc/sys/kernel/sched_autogroup_enabled")
    conditions: dict[str, Any] = {
        "processor": processor_name(),
        "cores": available_cores(),
        "autogroup": autogroup.exists() and autogroup.read_text().strip() == "1",
        "used_by_others_before": round(others, 2),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    print(f"{conditions['processor']}, {conditions['cores']} cores; others used {others:.2f} cores before the start")
    print(f"\n{'ms a step':12}" + "".join(f"{situation:>24}" for situation in SITUATIONS))
    for name in CONTESTANTS:
        cells = [f"{medians[name, each]:.0f} ({medians[name, each] / alone:.2f} x)" for each in SITUATIONS]
        print(f"{name:12}" + "".join(f"{cell:>24}" for cell in cells))
    print("\nx: times all cores alone\n")
    results = {
        name: {
            situation: {
                "step_ms": round(medians[name, situation], 1),
                "times_all_cores_alone": round(medians[name, situation] / alone, 3),
                "turns": [{key: round(value, 1) for key, value in each.items()} for each in turns[name, situation]],
            }
            for situation in SITUATIONS
        }
        for name in CONTESTANTS
    }
    print(json.dumps({"benchmark": "threads", "conditions": conditions, "results": results}))


if __name__ == "__main__":
    main()
