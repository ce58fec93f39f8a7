"""Exact resume of a Trainer: from its newest complete checkpoint, with samples in the order of an uninterrupted run."""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.common.json_files import read_json
from training.common.metrics import METRICS
from training.common.processes import end_training
from training.common.signals import Interrupted, StopSignals
from training.stages.help import command_line
from training.stages.stage import Stage
from training.tuning.pipeline.progress import MetricsFile

_STATE = {"global_step": int, "max_steps": int}


def train(stage: Stage, trainer: Trainer) -> None:
    """Train to the last step, from the newest complete checkpoint if there is one. Every process calls this.

    What the Trainer logs goes to `metrics.jsonl` in the stage's folder.

    Raises:
        Interrupted: a signal stopped the run, with its last step saved.
    """
    checkpoint = newest_checkpoint(Path(trainer.args.output_dir), trainer.args.world_size)
    if trainer.is_world_process_zero():
        print(f"{stage.name}: {command_line('watch', stage.output_dir)} shows this run in another terminal")
        if checkpoint:
            print(f"{stage.name}: resuming from {checkpoint}")
    if checkpoint and all_steps_done(Path(checkpoint)):
        # The Trainer looks at the number of steps only after one: it would train one too many.
        trainer._run_epoch = lambda **_: None
    trainer.add_callback(MetricsFile(stage.folder / METRICS))
    with StopSignals() as stop:
        trainer.add_callback(SaveOnSignal(stage, stop, trainer.accelerator))
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except Interrupted:
            end_training(trainer.accelerator)
            raise


class SaveOnSignal(TrainerCallback):
    """After Ctrl-C or SIGTERM, saves the current step and ends the run. Records every checkpoint in the stage.

    Args:
        stop: the signals of this process.
        accelerator: of the Trainer, through which all processes learn of a signal at the same step.
    """

    def __init__(self, stage: Stage, stop: StopSignals, accelerator: Any):
        self.stage, self.stop, self.accelerator = stage, stop, accelerator
        self.signum: int | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        counts = torch.tensor(self.stop.local_signals(), device=self.accelerator.device)
        self.signum = self.stop.agreed_signal(self.accelerator.reduce(counts, reduction="sum").tolist())
        if self.signum is not None and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record the checkpoint. After a signal, raise Interrupted, unless this was the last step anyway."""
        if state.is_world_process_zero:
            self.stage.heartbeat()
        if self.signum is None or state.global_step == state.max_steps:
            return
        self.accelerator.wait_for_everyone()  # once one process has ended, launchers soon kill the others
        raise Interrupted(self.signum, self.stage.describe_stop(state.global_step))


def newest_checkpoint(folder: Path, world_size: int = 1) -> str | None:
    """The newest checkpoint of the Trainer that is whole: the last files that its processes write are there.

    Args:
        folder: the Trainer's output_dir.
        world_size: number of processes, each of which saves its random state in a separate file.
    """
    states = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            read_json(checkpoint / "trainer_state.json", _STATE)
        except (OSError, ValueError):
            continue
        if all((checkpoint / name).is_file() for name in states):
            return str(checkpoint)
    return None


def all_steps_done(checkpoint: Path) -> bool:
    """Whether a checkpoint of the Trainer is of the last step, as of a run that was killed while it saved the model."""
    state = read_json(checkpoint / "trainer_state.json", _STATE)
    return state["global_step"] >= state["max_steps"]


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
