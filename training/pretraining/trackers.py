"""Where the records of a run go besides metrics.jsonl: TensorBoard, Trackio or Weights & Biases, through Accelerate."""

import importlib.util
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from training.common.errors import UserError
from training.common.packages import how_to_install
from training.common.recipe import flatten

PROJECT = "scratch"


def check_trackers(names: list[str]) -> None:
    """Refuse a tracker that is not there: Accelerate would go on without it.

    Raises:
        UserError: not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"'report_to': {name} is not installed; {how_to_install(name)}")


def start_trackers(accelerator: Accelerator, output_dir: str, folder: Path, recipe: dict[str, Any], step: int) -> None:
    """Open the trackers that the accelerator was made with, and give them the resolved recipe.

    Args:
        output_dir: what the run is called there.
        folder: for what trackers keep on the disk.
        step: what the run goes on from.
    """
    if not accelerator.log_with:
        return
    settings = {
        "tensorboard": {"purge_step": step + 1},  # later records of an interrupted run come again
        "trackio": {"name": output_dir, "resume": "allow"},
        "wandb": {"name": output_dir, "dir": str(folder)},
    }
    # Values that every tracker can store.
    flat = {
        key: value if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in flatten(recipe).items()
    }
    accelerator.init_trackers(PROJECT, flat, settings)
