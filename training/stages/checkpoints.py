"""The complete checkpoints of a pretraining run, found by their markers. See `training.pretraining.checkpoint`."""

from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from training.common.json_files import read_json

CHECKPOINTS, MARKER = "checkpoints", "complete.json"  # the folder in the output, and the file in each checkpoint
PROGRESS = {"step": int, "validation_loss": (int, float, NoneType)}  # at least


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Args:
        progress: as given to `Checkpoints.save`.
    """

    folder: Path
    progress: dict[str, Any] = field(hash=False)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.progress["step"]

    @property
    def validation_loss(self) -> float | None:
        """In nats per token; None if the step was not validated."""
        return self.progress["validation_loss"]


def read_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints in a folder by their markers, sorted by step. Whether their files match is not checked."""
    return [checkpoint for path in sorted(folder.glob("step-*[0-9]")) if (checkpoint := read_checkpoint(path))]


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint by its marker, or None if the marker cannot be read."""
    try:
        return Checkpoint(folder, read_json(folder / MARKER, {"progress": PROGRESS})["progress"])
    except (OSError, ValueError):
        return None
