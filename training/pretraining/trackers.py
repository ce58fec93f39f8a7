"""Experiment trackers of a pretraining run: TensorBoard, Trackio and Weights & Biases, through Accelerate."""

import importlib.util
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from training.common.errors import UserError
from training.common.packages import how_to_install
from training.stages.flags import flatten

PROJECT = "scratch"


def check_trackers(names: list[str]) -> None:
    """Reject trackers that are not installed, which Accelerate would silently leave out.

    Raises:
        UserError: a tracker is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"'report_to': {name} is not installed; {how_to_install(name)}")


def start_trackers(accelerator: Accelerator, output_dir: str, folder: Path, recipe: dict[str, Any], step: int) -> None:
    """Start the trackers that the accelerator was built with, and give them the resolved recipe.

    Args:
        output_dir: the name of the run.
        folder: where trackers keep their files.
        step: the step that the run starts or resumes from.
    """
    if not accelerator.log_with:
        return
    settings = {
        "tensorboard": {"purge_step": step + 1},  # later records of the interrupted run are written again
        "trackio": {"name": output_dir, "resume": "allow"},
        "wandb": {"name": output_dir, "dir": str(folder)},
    }
    # Types that every tracker can store.
    flat = {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in flatten(recipe).items()
    }
    accelerator.init_trackers(PROJECT, flat, settings)
