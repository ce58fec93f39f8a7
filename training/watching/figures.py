"""The figures of a training run, collected from the records of its metrics.jsonl as they come."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from training.watching.growing import number

Points = list[tuple[float, float]]  # (step, value)
_MOST_POINTS = 4000  # of a curve, more than any terminal shows
_MARKS = 30  # arrivals of records over which the pace is a mean


def thin(points: Points, most: int) -> Points:
    """At most so many points: means of neighbours."""
    size = math.ceil(len(points) / most)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in groups]


@dataclass(frozen=True)
class Mark:
    """When the records up to a step were written, in seconds since 1970, and the tokens trained on by then."""

    when: float
    step: int
    tokens: float | None


@dataclass
class Figures:
    """The known figures of a run. Pretraining and TRL's trainers use different names for some of it.

    Attributes:
        losses, validations: by step.
        newest: the newest value of every figure, by its name in metrics.jsonl.
        marks: the newest arrivals of records.
    """

    losses: Points = field(default_factory=list)
    validations: Points = field(default_factory=list)
    newest: dict[str, float] = field(default_factory=dict)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=_MARKS))

    def add(self, records: list[dict[str, Any]], when: float) -> None:
        """Add records.

        Args:
            when: the last one was written, in seconds since 1970.
        """
        before = self.step
        for record in records:
            step = number(record, "step")
            if step is None:
                continue
            figures = {key: value for key in record if (value := number(record, key)) is not None}
            self.newest |= figures
            if "loss" in figures:
                self.losses.append((step, figures["loss"]))
                if len(self.losses) == _MOST_POINTS:
                    self.losses = thin(self.losses, _MOST_POINTS // 2)
            validation = figures.get("validation_loss", figures.get("eval_loss"))
            if validation is not None:
                self.validations.append((step, validation))
        if self.step > before or records and not self.marks:
            self.marks.append(Mark(when, self.step, self.newest.get("tokens", self.newest.get("num_tokens"))))

    @property
    def step(self) -> int:
        """The newest step."""
        return int(self.newest.get("step", 0))

    def total_steps(self, max_steps: int | None, epochs: float | None) -> int | None:
        """The steps of the whole run: `max_steps`, or as many as the epochs take by the newest record."""
        if max_steps and max_steps > 0:
            return max_steps
        done = self.newest.get("epoch")
        total = self.step / done * epochs if done and epochs else math.inf
        return max(self.step, round(total)) if math.isfinite(total) else None

    def seconds_per_step(self) -> float | None:
        """Seconds per step, pauses included, while the run was watched; before that, those of training alone."""
        first, last = (self.marks[0], self.marks[-1]) if self.marks else (None, None)
        if first and last.step > first.step and last.when > first.when:
            return (last.when - first.when) / (last.step - first.step)
        seconds = self.newest.get("seconds")
        return seconds / self.step if seconds and self.step else None

    def seconds_left(self, total: int | None, now: float) -> float | None:
        """Seconds to the end.

        Args:
            total: steps of the run.
            now: seconds since 1970.
        """
        pace = self.seconds_per_step()
        if pace is None or total is None or not self.marks:
            return None
        left = max(0.0, pace * (total - self.step) - max(0.0, now - self.marks[-1].when))
        return left if math.isfinite(left) else None

    def tokens_per_second(self) -> float | None:
        """Tokens per second as the run reports them, or as they came while it was watched."""
        reported = self.newest.get("tokens_per_second")
        if reported is not None or len(self.marks) < 2:
            return reported
        first, last = self.marks[0], self.marks[-1]
        if first.tokens is None or last.tokens is None or not last.when > first.when:
            return None
        return max(0.0, last.tokens - first.tokens) / (last.when - first.when)
