"""What `scratch plan` predicts, against what the real model does: parameters, FLOPs, peak memory and step time.

    python -m benchmarks.planner                 # everything: about twenty minutes on one core
    python -m benchmarks.planner parameters flops
    python -m benchmarks.planner time            # on an idle machine

- Parameters: of every preset, with and without each option that changes their number, and of every recipe.
- FLOPs: of forward and backward, against torch's counter (torch.utils.flop_counter), which sees the whole square of
  attention.
- Memory: each case trains two steps in a new process. `tensors` is the most bytes that tensors take at once, by
  the profiler's record. `process` is resident memory, as a user sees it: that of a process with the imports of `scratch
  pretrain`, and the growth by the steps. It includes what the C library and oneDNN keep for themselves.
- Time: an optimizer step, median over rounds in which the cases take turns, against the prediction after a calibration
  of five seconds.

A table of predicted against measured for each, misses included. The last line is everything as JSON.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.machine import conditions as machine
from benchmarks.model import resident_megabytes
from benchmarks.peak_memory import peak_bytes
from modeling_scratch import PRESETS, ScratchConfig, ScratchForCausalLM
from training.common.device import has_bf16, seconds
from training.common.tables import as_markdown
from training.optim.config import OptimizerConfig
from training.optim.optimizer import build_optimizer
from training.planner.architecture import Architecture
from training.planner.calibration import calibrate
from training.planner.facts.devices import read_market
from training.planner.flops import flops_per_token
from training.planner.layout import Layout, Shape
from training.planner.memory import peak_memory
from training.planner.speed import step_time
from training.pretraining.model import checkpoint_activations
from training.stages.yaml_values import read_yaml

RECIPES = Path(__file__).parents[1] / "recipes"
MB = 1e6
CPU = torch.device("cpu")
CALIBRATION = 5.0  # seconds
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model and how it is trained, by options of `ScratchConfig.from_preset` and fields of `Shape`."""

    preset: str
    options: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """Of a run with one micro-batch per step, unless the case says otherwise."""
        batch = self.training.get("micro_batch", 1)
        return Shape(**({"global_batch": batch, "bf16": has_bf16(CPU)} | self.training))

    @property
    def config(self) -> ScratchConfig:
        """Of the real model."""
        positions = {"max_position_embeddings": self.shape.sequence_length}
        return ScratchConfig.from_preset(self.preset, **(positions | self.options))

    @property
    def architecture(self) -> Architecture:
        """For the planner."""
        return Architecture.from_config(self.config, self.preset)

    @property
    def name(self) -> str:
        """In tables: all that the case sets."""
        sizes = ", ".join(f"{key} {value}" for key, value in (self.options | self.training).items())
        return f"{self.preset}: {sizes}"


def case(preset: str, width: int, layers: int, vocabulary: int, sequence: int, batch: int, **changes: Any) -> Case:
    """A case from its sizes; `changes` are options of the model, or fields of `Shape`."""
    options = {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": vocabulary}
    options["num_attention_heads"] = width // 64
    training = {"sequence_length": sequence, "micro_batch": batch}
    for key, value in changes.items():
        (training if key in Shape.__dataclass_fields__ else options)[key] = value
    return Case(preset, options, training)


CHECKPOINTED, ADAMW = {"checkpointing": True}, {"optimizer": "adamw"}
# Preset x checkpointing x optimizer, and what else changes the peak. The largest takes 1.2 GB.
CASES = [
    case("gpt2", 256, 4, 8192, 256, 8),
    case("gpt2", 256, 4, 8192, 256, 8, **CHECKPOINTED),
    case("gpt2", 384, 6, 16384, 256, 4, **ADAMW),
    case("gpt2", 384, 6, 16384, 512, 4, **ADAMW, **CHECKPOINTED),
    case("llama", 256, 4, 8192, 256, 8),
    case("llama", 256, 4, 8192, 256, 8, **CHECKPOINTED),
    case("llama", 384, 6, 16384, 256, 4, **ADAMW),
    case("llama", 384, 6, 16384, 512, 4, **ADAMW, **CHECKPOINTED),
    case("qwen3", 256, 4, 8192, 256, 8),
    case("qwen3", 256, 4, 8192, 256, 8, **CHECKPOINTED),
    case("qwen3", 384, 6, 16384, 256, 4, **ADAMW),
    case("qwen3", 384, 6, 16384, 512, 4, **ADAMW, **CHECKPOINTED),
    case("scratch", 256, 4, 8192, 256, 8),
    case("scratch", 256, 4, 8192, 256, 8, **CHECKPOINTED),
    case("scratch", 384, 6, 16384, 256, 4, **ADAMW),
    case("scratch", 384, 6, 16384, 512, 4, **ADAMW, **CHECKPOINTED),
    case("llama", 256, 4, 65536, 256, 4, **ADAMW),
    case("llama", 256, 4, 65536, 256, 4, **ADAMW, tie_word_embeddings=True),
    case("llama", 256, 4, 65536, 128, 4, **ADAMW, chunked_loss=False),
    case("gpt2", 256, 4, 32768, 256, 4, **ADAMW, chunked_loss=False),
    case("llama", 256, 4, 8192, 1024, 2, attention="eager"),
    case("llama", 256, 4, 8192, 2048, 2),
    case("llama", 256, 4, 8192, 256, 8, num_key_value_heads=1),
    case("llama", 256, 4, 8192, 256, 4, global_batch=8),
    case("qwen3", 256, 4, 8192, 256, 8, bf16=False),
    case("scratch", 256, 4, 8192, 256, 32),
    case("scratch", 256, 4, 8192, 256, 2),
    case("scratch", 512, 2, 8192, 256, 4, embedding_shortcut=True),
]
TIMED = [
    case("scratch", 256, 4, 8192, 256, 2),
    case("scratch", 256, 8, 8192, 256, 2),
    case("llama", 256, 4, 8192, 256, 2, **ADAMW),
    case("llama", 256, 4, 8192, 512, 2, **CHECKPOINTED),
    case("llama", 256, 4, 32768, 256, 2),
    case("gpt2", 384, 4, 8192, 256, 2),
]


def relative(predicted: float, measured: float) -> float:
    """The prediction's error, as a share of the measurement."""
    return predicted / measured - 1


def check_parameters() -> list[Row]:
    """Number of parameters by the planner and of the real model, which is built without memory."""
    variants: dict[str, Case] = {}
    options: list[dict[str, Any]] = [{"tie_word_embeddings": True}, {"num_key_value_heads": 1}, {"head_dim": 32}]
    options += [{"attention_bias": True}, {"mlp_bias": True}, {"qk_norm": True}, {"embedding_shortcut": True}]
    options += [{"position_type": kind} for kind in ("rope", "learned", "sinusoidal", "none")]
    options += [{"mlp_type": kind} for kind in ("swiglu", "gelu", "relu2")]
    options += [{"norm_type": kind} for kind in ("rms", "layer")]
    for preset in PRESETS:
        for option in [{}, *options]:
            variants[f"{preset} {option or ''}"] = Case(preset, option)
    for file in sorted(RECIPES.rglob("pretrain*.yaml")):
        recipe = read_yaml(file)
        length = {"max_position_embeddings": recipe.get("sequence_length", 256)}
        variants[str(file.relative_to(RECIPES))] = Case(
            recipe.get("preset", "scratch"), length | recipe.get("model", {})
        )
    rows = []
    for name, variant in variants.items():
        with torch.device("meta"):
            model = ScratchForCausalLM(variant.config)
        counted = sum(weight.numel() for weight in model.parameters())
        predicted = variant.architecture.num_parameters
        rows.append({"model": name, "predicted": predicted, "counted": counted, "equal": predicted == counted})
    return rows


def check_flops(cases: list[Case]) -> list[Row]:
    """FLOPs of forward and backward by the planner and by torch's counter, on tensors without content."""
    rows = []
    for name, variant in {_without_shape(variant): variant for variant in cases}.items():
        length = variant.shape.sequence_length
        with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
            # Written out, so that the counter sees the products of attention: it does not know the CPU's kernel.
            model = ScratchForCausalLM._from_config(
                variant.config, attn_implementation="eager", dtype=torch.float32
            )
            input_ids = torch.zeros(1, length, dtype=torch.long)
            model(input_ids, labels=input_ids, use_cache=False).loss.backward()
        counted = counter.get_total_flops() / length
        predicted = flops_per_token(variant.architecture, length).palm
        rows.append({"model": name, "predicted": predicted, "counted": counted, "error": relative(predicted, counted)})
    return rows


def _without_shape(variant: Case) -> str:
    return Case(variant.preset, variant.options, {"sequence_length": variant.shape.sequence_length}).name


def build_step(variant: Case, device: torch.device) -> Callable[[], None]:
    """An optimizer step of the real model, as `Pretrainer.train_step` does it, on the same batch every time."""
    shape = variant.shape
    torch.manual_seed(0)
    with device:
        model = ScratchForCausalLM._from_config(variant.config, attn_implementation=shape.attention).float()
    if shape.checkpointing:
        checkpoint_activations(model)
    optimizer = build_optimizer(model.train(), OptimizerConfig(name=shape.optimizer))
    input_ids = torch.randint(variant.config.vocab_size, (shape.micro_batch, shape.sequence_length), device=device)
    position_ids = torch.arange(shape.sequence_length, device=device).expand_as(input_ids)

    def step() -> None:
        for _ in range(shape.global_batch // shape.micro_batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=shape.bf16):
                loss = model(
                    input_ids=input_ids,
                    labels=input_ids,
                    shift_labels=input_ids,
                    position_ids=position_ids,
                    use_cache=False,
                    skip_logits=shape.chunked_loss,
                ).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def two_steps(variant: Case, device: torch.device) -> None:
    """Build and train for two steps: the first creates the optimizer's state."""
    step = build_step(variant, device)
    step()
    step()


def measure_resident(variant: Case) -> float:
    """Growth of this process by two steps, in bytes; run in a process that has done nothing else."""
    tiny = case(variant.preset, 64, 1, 64, 16, 1, optimizer=variant.shape.optimizer)
    two_steps(tiny, CPU)  # loads the kernels of the libraries
    before = resident_megabytes("VmRSS")
    two_steps(variant, CPU)
    return (resident_megabytes("VmHWM") - before) * MB


def measure_in_process(variant: Case, results: Any) -> None:
    """Put the growth of a new process and the bytes of its tensors."""
    resident = measure_resident(variant)
    results.put((resident, peak_bytes(lambda: two_steps(variant, CPU), CPU)))


def check_memory(cases: list[Case], layout: Layout) -> list[Row]:
    """Peak memory of training by the planner, of the tensors and of the process. On Linux, whose /proc it reads."""
    server = multiprocessing.get_context("forkserver")  # imports once, and forks processes that have done nothing
    server.set_forkserver_preload(["benchmarks.planner"])
    imported, rows = imported_bytes(), []
    for variant in tqdm(cases, unit="case", disable=None):
        results = server.Queue()
        process = server.Process(target=measure_in_process, args=(variant, results))
        process.start()
        resident, tensors = results.get(timeout=600)
        process.join()
        rows.append(process_row(variant, layout, tensors, resident + imported))
    return rows


def imported_bytes() -> float:
    """Resident memory of a process with the imports of `scratch pretrain`."""
    script = "import training.pretraining.loop; print(open('/proc/self/status').read())"
    status = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def process_row(variant: Case, layout: Layout, tensors: float, resident: float) -> Row:
    """Predictions of the bytes of tensors and of the whole process, beside what was measured."""
    planned = peak_memory(variant.architecture, variant.shape, layout).peak.expected
    return memory_row(variant, layout, tensors) | {
        "predicted process (MB)": planned / MB,
        "process (MB)": resident / MB,
        "process error": relative(planned, resident),
    }


def memory_row(variant: Case, layout: Layout, measured: float) -> Row:
    """A prediction of peak memory beside the bytes of tensors that were measured."""
    memory = peak_memory(variant.architecture, variant.shape, layout)
    return {
        "case": variant.name,
        "peak": memory.phase,
        "predicted (MB)": memory.allocated / MB,
        "tensors (MB)": measured / MB,
        "error": relative(memory.allocated, measured),
    }


def check_time(cases: list[Case], layout: Layout, rounds: int) -> list[Row]:
    """Seconds of an optimizer step by the planner after a calibration for each case, and measured."""
    steps = {variant.name: build_step(variant, CPU) for variant in cases}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for index in tqdm(range(rounds), unit="round", disable=None):
        for name in list(steps)[:: -1 if index % 2 else 1]:
            taken[name].append(seconds(steps[name], CPU))
    rows = []
    for variant in cases:
        calibration = calibrate(variant.architecture, variant.shape, CALIBRATION)
        predicted = step_time(variant.architecture, variant.shape, layout, calibration).expected
        measured = statistics.median(taken[variant.name])
        row = {"case": variant.name, "predicted (ms)": predicted * 1000, "measured (ms)": measured * 1000}
        rows.append(row | {"error": relative(predicted, measured)})
    return rows


def as_cell(key: str, value: Any) -> str:
    """A figure for a table; errors as percentages."""
    if key.endswith("error"):
        return f"{value:+.1%}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def print_table(title: str, rows: list[Row]) -> None:
    """Print a table and the largest error. Of a long list of equal numbers, only the differences."""
    if "equal" in rows[0]:
        different = [row for row in rows if not row["equal"]]
        print(f"\n{title}: {len(rows) - len(different)} of {len(rows)} models equal")
        rows = different
    if rows:
        table = [list(rows[0]), *([as_cell(key, value) for key, value in row.items()] for row in rows)]
        print(f"\n{title}\n\n{as_markdown(table)}")
    for key in rows[0] if rows else ():
        if key.endswith("error"):
            print(f"largest {key} {max(abs(row[key]) for row in rows):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="parameters, flops, memory, time (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each case of `time`")
    options = parser.parse_args()
    layout = Layout(read_market().find("CPU"))
    checks: dict[str, Callable[[], list[Row]]] = {
        "parameters": check_parameters,
        "flops": lambda: check_flops(CASES),
        "memory": lambda: check_memory(CASES, layout),
        "time": lambda: check_time(TIMED, layout, options.rounds),
    }
    results = {}
    for name in options.what or checks:
        results[name] = checks[name]()
        print_table(name, results[name])
    conditions = machine(CPU) | {"load": round(os.getloadavg()[0], 1), "rounds": options.rounds}
    print(json.dumps({"benchmark": "planner", "conditions": conditions} | results))


if __name__ == "__main__":
    main()
