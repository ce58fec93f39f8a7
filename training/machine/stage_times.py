"""Time estimates for the stages of a recipe folder on a machine, and the training steps that fit into some minutes.

The estimates are simple rules, good to about a third: the operations of the matrix products, over the share of the
machine's measured rate that such networks reach, plus what the stage takes elsewhere. They cover the stages of a
folder that begins with pretraining, whose recipe has the size of the network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.common.metrics import as_duration
from training.machine.resources import Machine

# Share of the matrix-product rate that the quickstart's pretraining reaches: on two cores of an AMD EPYC 153 of 425
# GFLOP/s in bf16, where the layers are compiled (204 with a network of width 256). In fp32 processors differ: 96 of 190
# there, and 78 of 270 on two cores of an Intel Xeon, both with width 256. A run that ends early is better than one that
# takes twice as long.
TRAINING = {"fp32": 0.29, "bf16": 0.36}
SCORING = 0.8  # share that a forward pass alone reaches
START = 8  # seconds from the start of a stage to its work: Python, torch, transformers
BYTES_PER_TOKEN = 3.3  # Python source with a vocabulary of 4,096
FILLED = 0.7  # share of `max_length` that the examples of SFT and DPO fill, with their padding
# Time of a Trainer step, which is never compiled, relative to pretraining on as many tokens.
TRAINER = 1.4
LORA = 1.9  # time of a step with adapter and reference model, relative to training all weights
LEARN_BYTES, PREPARE_BYTES = 450_000, 250_000  # bytes of text per second, tokenizer and prepare
GENERATED = 1500  # tokens per second that `evaluate` generates in a batch, with a network of a few million parameters
ITEM_TOKENS = 200  # in an item that `evaluate` scores
SCALED = ("pretrain", "sft", "dpo")  # the stages whose steps are fitted
# A run far shorter than the recipe's learns nothing; a longer one repeats its examples more often than helps.
LEAST, EPOCHS = 0.2, {"pretrain": 4, "sft": 2, "dpo": 1}


@dataclass
class Folder:
    """The recipes of a folder: the values of each stage, overrides included."""

    recipes: Mapping[str, Mapping[str, Any]]

    def get(self, stage: str, dotted: str, default: Any) -> Any:
        """A value of a recipe, or the default where it is missing."""
        value: Any = self.recipes.get(stage, {})
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return default if value is None else value

    @property
    def weights(self) -> int:
        """Weights in matrix products of the network that `pretrain` makes, its MLP with three matrices."""
        size = self.get("pretrain", "model.hidden_size", 256)
        layers = self.get("pretrain", "model.num_hidden_layers", 6)
        inner = self.get("pretrain", "model.intermediate_size", -int(-size * 8 / 3 // 64) * 64)
        return layers * (4 * size**2 + 3 * size * inner) + size * self.get("tokenizer", "vocab_size", 8192)

    def steps(self, stage: str) -> int:
        """Training steps by the recipe."""
        return self.get(stage, "max_steps", 1000)

    def operations(self, stage: str) -> float:
        """Floating-point operations that one step of a stage is worth: six per weight and token, and overheads."""
        if stage == "pretrain":
            tokens = self.get(stage, "global_batch_size", 32) * self.get(stage, "sequence_length", 256)
            return 6 * self.weights * tokens
        tokens = self.get(stage, "per_device_train_batch_size", 8) * self.get(stage, "max_length", 1024) * FILLED
        return TRAINER * 6 * self.weights * tokens * (2 * LORA if stage == "dpo" else 1)  # two answers

    def most_steps(self, stage: str) -> float:
        """Steps after which a stage has seen its data often enough; infinite if the recipes do not limit the data."""
        if stage == "pretrain":
            tokens = self.get("prepare", "data.max_bytes", math.inf) / BYTES_PER_TOKEN
            step = self.get(stage, "global_batch_size", 32) * self.get(stage, "sequence_length", 256)
            return EPOCHS[stage] * tokens / step
        kind = {"sft": "instructions", "dpo": "preferences"}[stage]
        examples = self.get("prepare", f"{kind}.train", math.inf)
        return EPOCHS[stage] * examples / self.get(stage, "per_device_train_batch_size", 8)


def describe_times(folder: Folder, machine: Machine) -> str:
    """The machine, and the estimated time of each stage."""
    seconds = {stage: estimate(folder, stage, machine) for stage in folder.recipes}
    known = {stage: time for stage, time in seconds.items() if time is not None}
    if not known:
        return machine.describe()
    total = f"; {as_duration(sum(known.values()))} in all" if len(known) == len(seconds) else ""
    times = ", ".join(f"{stage} {as_duration(time)}" for stage, time in known.items())
    return f"{machine.describe()}\nestimated: {times}{total}"


def estimate(folder: Folder, stage: str, machine: Machine) -> float | None:
    """Seconds of a stage; None for a stage without a rule."""
    if stage == "tokenizer":
        return START + folder.get(stage, "max_bytes", 10**7) / LEARN_BYTES
    if stage == "prepare":
        return START + folder.get(stage, "data.max_bytes", 10**7) / PREPARE_BYTES
    if stage == "export":
        return 2 * START
    if "pretrain" not in folder.recipes or folder.get("pretrain", "depth", None):
        return None
    if stage in SCALED:
        speed = machine.rate * TRAINING["bf16" if machine.bf16 else "fp32"]
        return START + folder.steps(stage) * folder.operations(stage) / speed
    if stage != "evaluate":
        return None
    held_out = folder.get("prepare", "data.max_bytes", 10**7) * folder.get("prepare", "data.validation_fraction", 0.05)
    answers = folder.get(stage, "limits.chats", 200) * len(folder.get(stage, "chats", {}))
    pairs = folder.get(stage, "limits.pairs", 300) * len(folder.get(stage, "pairs", {}))
    choices = folder.get("prepare", "tasks", 0) * len(folder.get(stage, "tasks", []))
    scored = held_out / BYTES_PER_TOKEN + (2 * pairs + 4 * choices) * ITEM_TOKENS
    scoring = 2 * folder.weights * scored / (SCORING * machine.rate)
    answering = answers * folder.get(stage, "max_new_tokens", 160) / GENERATED
    return START + len(folder.get(stage, "models", {})) * (scoring + answering)


def fit_steps(folder: Folder, machine: Machine, minutes: float) -> dict[str, int]:
    """Steps of each training stage with which the whole folder takes so many minutes: all scaled by one factor.

    Empty if the folder has a stage without a rule.
    """
    seconds = {stage: estimate(folder, stage, machine) for stage in folder.recipes}
    stages = [stage for stage in SCALED if stage in seconds]
    if None in seconds.values() or not stages:
        return {}
    training = sum(seconds[stage] - START for stage in stages)
    factor = max(LEAST, (60 * minutes - (sum(seconds.values()) - training)) / training)
    most = {stage: max(folder.steps(stage), folder.most_steps(stage)) for stage in stages}
    return {stage: max(1, int(min(round(factor * folder.steps(stage)), most[stage]))) for stage in stages}
