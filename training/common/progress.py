"""Progress bars with rate and time left, shown only on a terminal."""

import time
from functools import partial

from tqdm import tqdm

from training.common.metrics import as_duration

progress_bar = partial(tqdm, disable=None)


class TrainingProgress:
    """Progress of a training run: a bar with the newest figures on a terminal, elsewhere a line per logging step.

    Args:
        total, first: training steps in all, and those that an interrupted run has done.
        hide_bar: print lines on a terminal too.
    """

    def __init__(self, total: int, first: int = 0, hide_bar: bool = False):
        self.total, self.first = total, first
        self.started = time.monotonic()
        self.bar = progress_bar(total=total, initial=first, unit="step", disable=True if hide_bar else None)

    def advance(self, step: int) -> None:
        """Move the bar to this step."""
        self.bar.update(step - self.bar.n)

    def log(self, step: int, figures: str) -> None:
        """Show the figures of a logging step."""
        self.bar.set_postfix_str(figures, refresh=False)
        if self.bar.disable:
            self.write(f"step {step}/{self.total}: {figures}, {as_duration(self.seconds_left(step))} left")

    def seconds_left(self, step: int) -> float:
        """Time to the end, by the pace of this process so far, pauses included."""
        return (time.monotonic() - self.started) / max(1, step - self.first) * (self.total - step)

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.write(line)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()
