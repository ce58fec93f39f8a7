"""Time and memory of a training step against parameters, sequence length, vocabulary and batch.

A point is measured in a separate process, by `Pretrainer.train_step`, the step of `scratch pretrain`, on random
tokens: eager, with attention by sdpa, in bf16 where the processor has it.
"""

import contextlib
import io
import multiprocessing
import statistics
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.model import resident_megabytes
from benchmarks.peak_memory import peak_bytes
from benchmarks.planner import CPU, MB, case, imported_bytes, two_steps
from benchmarks.pretrain import build, write_random_data
from benchmarks.scaling_curves import CLOCKS, Curve, Point, Quantity
from training.common.device import has_bf16
from training.planner.architecture import Architecture
from training.planner.calibration import calibrate
from training.planner.facts.devices import read_market
from training.planner.layout import Layout, Shape
from training.planner.memory import peak_memory
from training.planner.speed import step_time
from training.pretraining.loop import Pretrainer

GROUP = "training"
WARM_UP = 2  # steps: the first creates the optimizer's state
STEPS, ENOUGH = (3, 15), 2.0  # fewest and most measured steps; seconds after which no more are begun
CALIBRATION = 2.0  # seconds
QUANTITIES = (
    Quantity("milliseconds", "time of a step, ms", planned="planned_milliseconds"),
    Quantity("tensors", "tensors, MB", planned="planned_tensors"),
    Quantity("process", "process, MB", planned="planned_process", fitted=False),
)
WIDTHS = (64, 128, 192, 256, 384, 512, 640)
PER_LAYER = 64  # of the width: larger models keep the proportions of smaller ones


@dataclass(frozen=True)
class Step:
    """A step of a small model, of which a curve changes one thing."""

    width: int = 256
    layers: int = 4
    vocabulary: int = 4096
    length: int = 256
    batch: int = 8
    at_once: int = 0  # sequences per forward pass; 0 for the whole batch
    optimizer: str = "muon"

    @property
    def shape(self) -> Shape:
        """For the planner."""
        batch = {"micro_batch": self.at_once or self.batch, "global_batch": self.batch}
        return Shape(self.length, **batch, bf16=has_bf16(CPU), optimizer=self.optimizer)

    def build(self, folder: Path) -> Pretrainer:
        """The loop of `scratch pretrain`, with random tokens."""
        arguments = Namespace(
            preset="qwen3",
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            layers=self.layers,
            heads=max(1, self.width // 64),
            seq=self.length,
            batch=self.batch,
            at_once=self.at_once or self.batch,
            optimizer=self.optimizer,
            dtype="bf16" if self.shape.bf16 else "fp32",
            rounds=1,
            steps=STEPS[1],
            eval_sequences=1,
            eval_steps=100,
            logging_steps=100,
            save_steps=100,
            data=None,
            tokenizer=None,
        )
        folder.mkdir()
        with contextlib.redirect_stdout(io.StringIO()):
            write_random_data(folder, arguments)
            return build("eager", folder, arguments)[0]


def time_step(step: Step, folder: Path, clock: Callable[[], float]) -> tuple[float, Pretrainer]:
    """Seconds of a step, as the median of several, and the loop that did them."""
    pretrainer = step.build(folder)
    for _ in range(WARM_UP):
        pretrainer.train_step()
    taken: list[float] = []
    while len(taken) < STEPS[0] or (len(taken) < STEPS[1] and sum(taken) < ENOUGH):
        started = clock()
        pretrainer.train_step()
        taken.append(clock() - started)
    return statistics.median(taken), pretrainer


def measure_here(step: Step, clock: str) -> Point:
    """The point of a process that has done nothing else; memory in MB."""
    two_steps(case("qwen3", 64, 1, 64, 16, 1, optimizer=step.optimizer), CPU)  # loads the kernels of the libraries
    before = resident_megabytes("VmRSS")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds, pretrainer = time_step(step, folder / "timed", CLOCKS[clock])
        grown = resident_megabytes("VmHWM") - before
        config = pretrainer.accelerator.unwrap_model(pretrainer.model).config
        parameters = pretrainer.num_parameters
        del pretrainer

        def train() -> None:
            again = step.build(folder / "watched")
            for _ in range(WARM_UP):
                again.train_step()

        tensors = peak_bytes(train, CPU) / MB
    point = {"parameters": parameters, "milliseconds": 1000 * seconds, "grown": grown, "tensors": tensors}
    return point | planned(step, Architecture.from_config(config, "qwen3"), clock)


def planned(step: Step, architecture: Architecture, clock: str) -> Point:
    """What `scratch plan --calibrate` predicts, calibrated for this very step."""
    layout = Layout(read_market().find("CPU"))
    calibration = calibrate(architecture, step.shape, CALIBRATION, CLOCKS[clock])
    memory = peak_memory(architecture, step.shape, layout)
    return {
        "planned_milliseconds": 1000 * step_time(architecture, step.shape, layout, calibration).expected,
        "planned_tensors": memory.allocated / MB,
        "planned_process": memory.peak.expected / MB,
    }


def _send(sender: Connection, step: dict[str, Any], clock: str, threads: int) -> None:
    torch.set_num_threads(threads)
    sender.send(measure_here(Step(**step), clock))


@cache
def _imported() -> float:
    return imported_bytes() / MB


def measure_apart(step: Step, clock: str) -> Point:
    """The point, from a new process: forked from one that has only imported, as in `benchmarks.planner`.

    Raises:
        EOFError: the process ended before it had the point.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["benchmarks.scaling_training"])
    receiver, sender = server.Pipe(duplex=False)
    process = server.Process(target=_send, args=(sender, asdict(step), clock, torch.get_num_threads()))
    process.start()
    sender.close()
    point = receiver.recv()
    process.join()
    return point | {"process": _imported() + point["grown"]}


def curves(clock: str) -> list[Curve]:
    """All curves of the group; time by `clock`."""

    def curve(
        panel: str, name: str, variable: str, sizes: tuple[int, ...], small: tuple[int, ...], **changes: Any
    ) -> Curve:
        made = {key: value if callable(value) else lambda _, value=value: value for key, value in changes.items()}

        def measure(size: int, _: Path) -> Point:
            step = Step(**{key: value(size) for key, value in made.items()})
            point = measure_apart(step, clock)
            return point | ({"shown": point["parameters"]} if panel == "parameters" else {})

        return Curve(GROUP, panel, name, variable, sizes, small, measure, QUANTITIES, rounds=1)

    def itself(size: int) -> int:
        return size

    def layers(width: int) -> int:
        return width // PER_LAYER

    model = {"width": itself, "layers": layers}
    lengths = (128, 256, 512, 1024, 2048, 4096, 8192)
    vocabularies = (1024, 4096, 8192, 16384, 32768, 65536)
    return [
        curve("parameters", "Muon", "parameters", WIDTHS, (64,), **model),
        curve("parameters", "AdamW", "parameters", (64, 128, 256, 512), (64,), **model, optimizer="adamw"),
        curve("sequence length", "", "tokens", lengths, (16,), length=itself, batch=1),
        curve("vocabulary", "", "rows", vocabularies, (512,), vocabulary=itself),
        curve("batch", "at once", "sequences", (1, 2, 4, 8, 16, 32, 64), (2,), batch=itself),
        curve("batch", "4 at a time", "sequences", (8, 16, 32, 64), (8,), batch=itself, at_once=4),
    ]
