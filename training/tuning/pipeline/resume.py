"""Exact resume of a Trainer: its newest complete checkpoint, and samples in the order of an uninterrupted run."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def newest_checkpoint(folder: Path, world_size: int = 1) -> str | None:
    """The newest checkpoint of the Trainer that is whole: the last files that its processes write are there.

    Args:
        folder: the Trainer's output_dir.
        world_size: number of processes, each of which saves its random state in a separate file.
    """
    states = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        if all((checkpoint / name).is_file() for name in states):
            return str(checkpoint)
    return None


class SeedSamplerByEpoch(TrainerCallback):
    """Gives a sampler without a generator, such as `group_by_length`, one that is seeded by seed and epoch.

    Otherwise it draws from the global generator, which dropout uses too: the order would differ after a resume, and
    between processes. Samplers with `set_epoch` are left alone.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, train_dataloader: Any, **_: Any
    ) -> None:
        batches = train_dataloader.batch_sampler
        while hasattr(batches, "batch_sampler"):  # Accelerate wraps it, and once more to skip batches
            batches = batches.batch_sampler
        sampler = getattr(batches, "sampler", None)
        if hasattr(sampler, "generator") and not hasattr(sampler, "set_epoch"):
            sampler.generator = torch.Generator().manual_seed(args.seed + int(state.epoch))
