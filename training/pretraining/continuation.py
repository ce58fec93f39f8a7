"""Continuation of a finished run: the checkpoints that a run with more steps, or one made again, has in common with it.

Up to the step where the learning rates of two runs begin to differ, the weights of both are the same, bit for bit. With
the schedule `wsd` that is where the shorter run begins to decay.
"""

import json
import os
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from training.common.metrics import LOGS
from training.common.outputs import read_provenance
from training.common.recipe import flatten
from training.common.stage import essential_recipe
from training.optim.schedule import learning_rate_factor
from training.pretraining.checkpoint import CHECKPOINTS, Checkpoint, read_checkpoints
from training.pretraining.config import RUNTIME_KEYS, PretrainConfig


@dataclass(frozen=True)
class Continuation:
    """Checkpoints that a new run can take over from a finished one.

    Attributes:
        folder: the finished output.
        checkpoints: those in common, by step.
        obstacle: why there are none, although only steps are added; in words.
    """

    folder: Path
    checkpoints: tuple[Checkpoint, ...] = ()
    obstacle: str = ""

    def describe(self) -> str:
        """The steps taken over, in words; empty for none."""
        return f"its first {self.checkpoints[-1].step} steps" if self.checkpoints else ""

    def copy_to(self, folder: Path) -> float:
        """Put checkpoints and logs into the working folder of the new run, unless it has got further already.

        Returns:
            Seconds of training that were added.
        """
        target = folder / CHECKPOINTS
        reached = max((own.step for own in read_checkpoints(target)), default=-1)
        added = [checkpoint for checkpoint in self.checkpoints if checkpoint.step > reached]
        if not added:
            return 0.0
        for log in LOGS:
            if (self.folder / log).is_file():
                shutil.copyfile(self.folder / log, folder / log)
        for checkpoint in added:
            name = checkpoint.folder.name
            temporary = target / f"{name}.tmp"  # which `Checkpoints.newest` removes
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(checkpoint.folder, temporary, copy_function=_link)
            temporary.rename(target / name)
        return added[-1].progress["seconds"]


def find_continuation(config: PretrainConfig, inputs: dict[str, str]) -> Continuation:
    """What a run can take over from the finished output in its `output_dir`.

    Args:
        inputs: digests of what the run reads.
    """
    folder = Path(config.output_dir)
    record = read_provenance(folder)
    if record.get("stage") != "pretrain" or record["inputs"] != inputs:
        return Continuation(folder)
    essential = partial(essential_recipe, runtime_keys=RUNTIME_KEYS)
    before = flatten(essential(record["recipe"]))
    now = flatten(json.loads(json.dumps(essential(config), default=str)))
    done = before.get("max_steps", 0)
    if done > config.max_steps or before | {"max_steps": config.max_steps} != now:
        return Continuation(folder)
    common = common_steps(config, done)
    checkpoints = tuple(kept for kept in read_checkpoints(folder / CHECKPOINTS) if kept.step <= common)
    obstacle = f"the two runs differ from step {common} on, and no checkpoint from before is kept"
    return Continuation(folder, checkpoints, "" if checkpoints or done == config.max_steps else obstacle)


def common_steps(config: PretrainConfig, done: int) -> int:
    """The first steps that are the same in a run and in one of `done` steps, which is at most as long."""
    schedule = config.optimizer

    def factor(step: int, max_steps: int) -> float:
        kind, warmup_steps = schedule.schedule, schedule.warmup_steps
        return learning_rate_factor(
            step, max_steps, kind, warmup_steps, schedule.decay_fraction, schedule.final_fraction
        )

    differing = (step for step in range(done) if factor(step, done) != factor(step, config.max_steps))
    common = next(differing, done)
    if config.curriculum and done < config.max_steps:  # its phases begin at fractions of the run
        common = min(common, replace(config, max_steps=done).mixture.starts[1])
    return common


def _link(source: str, target: str) -> None:
    """Share a file, which is never written again, between two checkpoints; copy it where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
