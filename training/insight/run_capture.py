"""Captures in a training run: at which steps, by which process, in which precision."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from training.insight.capture import Capture

SHARDED = (
    "insight: a model divided over processes is not captured while it trains; record its checkpoints afterwards with "
    "`scratch attention`"
)


class RunCapture:
    """Captures at some steps of a run. Every process may call it; only the main one does anything.

    A run that resumes has the record of an uninterrupted one: later captures of the interrupted run are dropped and
    come again.

    Args:
        capture: of the run's model.
        steps: at which to capture.
    """

    def __init__(self, accelerator: Accelerator, capture: Capture, steps: Collection[int]):
        self.accelerator, self.of_model = accelerator, capture
        self.steps = frozenset(steps if accelerator.is_main_process else ())

    def begin(self, folder: Path, model: Any, step: int) -> str:
        """Open the record of the run. It begins with this step if no earlier one is recorded.

        Args:
            folder: of the record.
            model: as Accelerate prepared it.
            step: the step that the run starts or resumes from.

        Returns:
            A line to print, which is empty in a run as usual.
        """
        if not self.accelerator.is_main_process:
            return ""
        record = self.of_model.begin(folder, step)
        if not record.empty:
            return ""
        self.capture(model, step)
        why = "its probes or heads have changed" if record.forgot else "it was off before"
        return f"pretrain: insight: the record begins at step {step}, because {why}" if step else ""

    def is_due(self, step: int) -> bool:
        """Whether a step is captured, by this process."""
        return step in self.steps

    def capture(self, model: Any, step: int) -> None:
        """Capture a step, in the precision of training. `begin` comes first."""
        with self.accelerator.autocast():
            self.of_model.write(self.accelerator.unwrap_model(model), step)
