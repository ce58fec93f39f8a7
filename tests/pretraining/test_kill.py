"""A killed and resumed run has the losses, weights and captures of an uninterrupted one, to the last bit.

The processes are real and die by SIGKILL. Most are forked from a server that has imported everything, which saves five
seconds a start; a few come from the command line, and some are two processes under `accelerate launch`. The moments are
drawn from a seed that a failure prints: while a checkpoint is being written, between two micro-batches of an
accumulation, anywhere from the first import on.
"""

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from fork_server import fork_server
from forked import scratch
from safetensors.torch import load_file
from timings import TIMINGS
from tiny_stages import MODEL, flags, write_data, write_tokenizer

ROOT = Path(__file__).parents[2]
STEPS = 100
ACCUMULATION = 8
OPTIONS = {
    **{f"model.{key}": value for key, value in MODEL.items()},
    "model.hidden_dropout": 0.1,  # so that a random draw that differs would show
    "bf16": "false",
    "max_steps": STEPS,
    "sequence_length": 16,
    "global_batch_size": ACCUMULATION,
    "per_device_train_batch_size": 1,
    "logging_steps": 1,
    "eval_steps": 10,
    "eval_sequences": 2,
    "save_steps": 2,
    "keep_best": 1,
    "insight.enabled": "true",
    "insight.tokens": 16,
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("stages")
    tokenizer = write_tokenizer(place / "tokenizer")
    return {"data": write_data(place / "data", tokenizer), "tokenizer": tokenizer}


@pytest.fixture(scope="module")
def one_thread():
    """Other numbers of threads sum in another order, and threads must not have started before a fork."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("TQDM_DISABLE", "1")
        patch.setenv("PYTHONUNBUFFERED", "1")
        yield


@pytest.fixture(scope="module", autouse=True)
def server(one_thread):
    with fork_server("training.cli", "training.commands.pretrain", "training.pretraining.loop"):
        yield


class Forked:
    """A run as a process of the fork server."""

    def __init__(self, arguments: list[str], output: Path):
        self.process = get_context("forkserver").Process(target=scratch, args=(["pretrain", *arguments], output))
        self.process.start()

    def ended(self) -> int | None:
        return self.process.exitcode

    def send(self, signum: int) -> None:
        os.kill(self.process.pid, signum)

    def wait(self) -> int:
        self.process.join(120)
        return self.process.exitcode


class ForkedPair:
    """A run of two processes of the fork server."""

    def __init__(self, arguments: list[str], output: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.processes = [
            get_context("forkserver").Process(
                target=scratch,
                args=(["pretrain", *arguments], output),
                kwargs=group | {"RANK": rank, "LOCAL_RANK": rank, "ACCELERATE_USE_CPU": "true"},
            )
            for rank in ("0", "1")
        ]
        for process in self.processes:
            process.start()

    def ended(self) -> int | None:
        return next((process.exitcode for process in self.processes if process.exitcode is not None), None)

    def send(self, signum: int) -> None:
        for process in self.processes:
            os.kill(process.pid, signum)

    def wait(self) -> int:
        for process in self.processes:
            process.join(120)
        first, second = (process.exitcode for process in self.processes)
        assert first == second
        return first


class Command:
    """A run as the command line starts it."""

    prefix = ["-m", "training", "pretrain"]

    def __init__(self, arguments: list[str], output: Path):
        with output.open("a") as stream:
            command = [sys.executable, *self.prefix, *arguments]
            environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)

    def ended(self) -> int | None:
        return self.process.poll()

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self) -> int:
        return self.process.wait(120)


class Launched(Command):
    """Two processes of a launcher, which starts each in its own session."""

    prefix = ["-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/cpu.yaml"]
    prefix += ["-m", "training", "pretrain"]

    def workers(self) -> dict[str, int]:
        """Process ids by rank."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                environment = (process / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            ranks = [entry[5:].decode() for entry in environment if entry.startswith(b"RANK=")]
            if parent == self.process.pid and ranks:
                found[ranks[0]] = int(process.name)
        return found

    def send(self, signum: int) -> None:
        """Send it to all of them at once, as in a power cut."""
        for pid in (self.process.pid, *self.workers().values()):
            os.kill(pid, signum)

    def send_to(self, rank: str, signum: int) -> None:
        os.kill(self.workers()[rank], signum)


class Harness:
    """One run that is killed and started again.

    Args:
        make: starts a process, given the arguments and a file for what it prints.
        seed: of the moments.
    """

    step_seconds = 0.1  # to begin with; measured by `measure`

    def __init__(self, make: Callable, arguments: list[str], folder: Path, seed: int):
        self.make, self.folder = make, folder
        self.arguments = [*arguments, f"--output_dir={folder}"]
        self.work = folder.with_name(folder.name + ".partial")
        self.log = self.work / "metrics.jsonl"
        self.output = folder.with_name(folder.name + ".txt")
        self.seed, self.random = seed, random.Random(seed)
        self.landed: Counter[str] = Counter()

    def start(self) -> None:
        # A sign counts only if it is not from before: whole checkpoints, halves of one, lines of the log.
        self.log_before = self.log.stat().st_mtime_ns if self.log.exists() else None
        self.half_before = self.half_written()
        steps = [int(path.name[5:]) for path in self.work.glob("checkpoints/step-*[0-9]")]
        self.resumed = max(steps, default=0)
        self.run = self.make(self.arguments, self.output)

    def kill(self, moment: str, rank: str | None = None) -> None:
        """Start, wait for the moment, kill; counts where it landed."""
        self.start()
        getattr(self, moment)()
        self.check()
        step = self.last_step()
        if rank:
            self.run.send_to(rank, signal.SIGKILL)
        else:
            self.run.send(signal.SIGKILL)
        assert self.run.wait() == (1 if rank else -signal.SIGKILL), self.said()
        assert not self.folder.exists(), self.said()
        self.landed[moment] += 1
        if moment == "writing":
            self.landed["half a checkpoint left"] += bool(self.half_written() - self.half_before)
        if moment == "accumulating":
            self.landed["between two lines of the log"] += self.last_step() == step

    def finish(self) -> int:
        self.start()
        return self.run.wait()

    def writing(self) -> None:
        """A checkpoint has its first file."""
        self.wait_for(lambda: self.half_written() - self.half_before)
        time.sleep(self.random.uniform(0, 0.01))

    def accumulating(self) -> None:
        """Between two micro-batches: after the line of a step that neither saves nor validates."""
        self.wait_for(lambda: self.new_step() % 2)
        time.sleep(self.random.uniform(0, 0.8) * self.step_seconds)

    def anywhere(self) -> None:
        """From the start of the process on; after five steps at the latest, or the run would end too early."""
        moment = time.monotonic() + self.random.uniform(0, 0.4 + 5 * self.step_seconds)
        self.wait_for(lambda: time.monotonic() > moment or self.new_step() >= self.resumed + 5)

    def wait_for(self, sign: Callable) -> None:
        deadline = time.monotonic() + 120
        while not sign():
            self.check()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.001)

    def check(self) -> None:
        assert self.run.ended() is None, self.said()

    def half_written(self) -> set[tuple[str, int, int]]:
        """Checkpoints that are being written, or were when a process died: name and identity."""
        found = set()
        for file in self.work.glob("checkpoints/*.tmp/config.json"):
            try:
                found.add((file.parent.name, file.stat().st_ino, file.stat().st_mtime_ns))
            except FileNotFoundError:  # renamed meanwhile
                continue
        return found

    def last_step(self) -> int:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def new_step(self) -> int:
        """The last step that this process has logged, 0 before its first."""
        touched = self.log.exists() and self.log.stat().st_mtime_ns != self.log_before
        step = self.last_step() if touched else 0
        return step if step > self.resumed else 0

    def said(self) -> str:
        printed = self.output.read_text()[-3000:] if self.output.exists() else ""
        return f"seed {self.seed}, {dict(self.landed)}, exit code {self.run.ended()}:\n{printed}"


def metrics(folder: Path) -> list[dict]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]


def assert_equal_runs(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert captures(one) == captures(other)


def captures(folder: Path) -> dict[str, bytes]:
    """The files of the record of attention."""
    found = {path.name: path.read_bytes() for path in (folder / "insight").rglob("*") if path.is_file()}
    assert len(found) > 15
    return found


def options(stages: dict[str, Path], **changes: object) -> list[str]:
    return flags({**OPTIONS, **stages, **changes})


@pytest.fixture(scope="module")
def untouched(one_thread, stages, tmp_path_factory) -> Path:
    harness = Harness(Forked, options(stages), tmp_path_factory.mktemp("untouched") / "model", seed=0)
    assert harness.finish() == 0, harness.said()
    return harness.folder


def seconds_per_step(folder: Path) -> float:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tokens = OPTIONS["sequence_length"] * OPTIONS["global_batch_size"]
    return statistics.median(tokens / record["tokens_per_second"] for record in records if "loss" in record)


def test_killed_anywhere(stages, untouched, tmp_path):
    harness = Harness(Forked, options(stages), tmp_path / "model", seed=1)
    harness.step_seconds = seconds_per_step(untouched)
    moments = ["writing", "accumulating", "anywhere"] * 9
    harness.random.shuffle(moments)
    for moment in moments:
        harness.kill(moment)
    harness.make = Command
    harness.kill("accumulating")
    harness.kill("writing")
    assert harness.finish() == 0, harness.said()
    assert harness.landed["half a checkpoint left"] >= 5, harness.said()
    assert harness.landed["between two lines of the log"] >= 5, harness.said()
    assert not list(harness.folder.glob("checkpoints/*.tmp"))
    assert_equal_runs(harness.folder, untouched)


def test_two_processes_killed(stages, one_thread, tmp_path):
    """Both at once, or one alone: then the launcher ends the other."""
    arguments = options(stages, max_steps=30)
    whole = Harness(Launched, arguments, tmp_path / "whole", seed=0)
    assert whole.finish() == 0, whole.said()
    harness = Harness(ForkedPair, arguments, tmp_path / "model", seed=2)
    harness.step_seconds = seconds_per_step(whole.folder)
    for moment, make, rank in (
        ("writing", ForkedPair, None),
        ("accumulating", Launched, "0"),
        ("accumulating", ForkedPair, None),
        ("writing", Launched, "1"),
        ("accumulating", ForkedPair, None),
    ):
        harness.make = make
        harness.kill(moment, rank)
    assert harness.finish() == 0, harness.said()
    assert "2 x cpu" in harness.output.read_text()
    assert_equal_runs(harness.folder, whole.folder)


def test_a_signal_saves_and_says_how_to_go_on(stages, untouched, tmp_path):
    harness = Harness(Forked, options(stages, save_steps=STEPS), tmp_path / "model", seed=3)
    for signum in (signal.SIGINT, signal.SIGTERM):
        harness.start()
        harness.wait_for(harness.new_step)
        harness.run.send(signum)
        assert harness.run.wait() == 128 + signum, harness.said()
        step = harness.last_step()
        assert (harness.work / "checkpoints" / f"step-{step:08d}" / "complete.json").is_file()
        said = harness.output.read_text()
        assert f"stopped after step {step}, saved; rerun the same command" in said and "Traceback" not in said
    assert harness.finish() == 0, harness.said()
    assert_equal_runs(harness.folder, untouched)


def test_a_signal_to_one_of_two_processes_stops_both(stages, one_thread, tmp_path):
    """A scheduler may reach one machine first. Both stop after the same step, and neither waits for the other."""
    harness = Harness(Launched, options(stages, max_steps=1000), tmp_path / "model", seed=4)
    harness.start()
    harness.wait_for(harness.new_step)
    harness.run.send_to("1", signal.SIGTERM)
    assert harness.run.wait() == 1, harness.said()
    said = harness.output.read_text()
    (step,) = {line.split("after step ")[1].split(",")[0] for line in said.splitlines() if "stopped after" in line}
    assert said.count(f"stopped after step {step}, saved") == 1  # the first process speaks for all
    assert (harness.work / "checkpoints" / f"step-{int(step):08d}" / "complete.json").is_file()
