"""Results of an evaluation as dataclasses: figures by key, and the outcome of every item."""

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from training.common.estimates import Estimate, mean_with_stderr

# Names of metrics, beside those of reward functions and of lm-eval.
ENDS, ALL, REWARD, ACCURACY, MARGIN, BITS = "ends", "all", "reward", "accuracy", "margin", "bits per byte"
Unit = Literal["share", "bits per byte", "nats", "score"]

# Plain words for metrics in tables; lm-eval's own metrics that are not listed keep their names.
_WORDS = {
    ("chats", "ends"): "answer ends",
    ("chats", "all"): "all of these",
    ("chats", "reward"): "reward model score",
    ("chats", "bits per byte"): "reference answers, bits per byte",
    ("pairs", "margin"): "margin in nats",
    ("tasks", "acc"): "accuracy",
    ("tasks", "acc_norm"): "accuracy by length",
    ("tasks", "exact_match"): "exact match",
    ("tasks", "bits_per_byte"): "bits per byte",
}


class MetricKey(NamedTuple):
    """The quantity that a figure measures.

    Attributes:
        kind: the recipe's key of the measure: data, texts, chats, pairs or tasks.
        name: of the file in the recipe, or of the task; "validation" for the split of `data`.
        metric: such as "ends", "accuracy" or "bits per byte".
    """

    kind: str
    name: str
    metric: str

    @property
    def title(self) -> str:
        """The name for tables."""
        return self.name.removeprefix("scratch_")

    @property
    def words(self) -> str:
        """The metric in plain words."""
        if (self.kind, self.metric) in _WORDS:
            return _WORDS[self.kind, self.metric]
        metric, space, filtered = self.metric.partition(" (")  # lm-eval's filter, as in `exact_match (strict-match)`
        return _WORDS.get((self.kind, metric), metric) + space + filtered

    @property
    def label(self) -> str:
        """The heading in tables."""
        return self.words if self.kind == "data" else f"{self.title}: {self.words}"


@dataclass(frozen=True)
class Figure(Estimate):
    """One result of one model.

    Attributes:
        unit: of the value. Fewer bits per byte are better; in all other units higher is better.
        left_out: items that could not be scored, and are not among the `n`.
        truncated: items that were scored without their beginning, because they exceed the context.
        by_seed: the value for each few-shot seed, if there are several; `value` is their mean.
        spread: the standard deviation of `by_seed`.
        details: further facts, such as the bytes of a text.
    """

    unit: Unit = "share"
    left_out: int = 0
    truncated: int = 0
    by_seed: list[float] | None = None
    spread: float | None = None
    details: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields by name. Optional ones without content are left out."""
        entry = {one.name: getattr(self, one.name) for one in fields(self)}
        defaults = vars(Figure(None, None, 0))
        always = ("value", "stderr", "n", "unit")
        return {key: value for key, value in entry.items() if key in always or value != defaults[key]}


def figure_of(
    values: list[float | None],
    unit: Unit = "share",
    weights: list[float] | None = None,
    chance: float | None = None,
    left_out: int = 0,
    details: dict[str, float] | None = None,
) -> Figure:
    """The mean of scored items.

    Args:
        values: one per item; None for an item that was not scored, which counts as left out.
        weights: one per item; None for equal weights.
        left_out: further items that are not among the values.

    Returns:
        A figure whose `value` is None if no item was scored.
    """
    scored = [place for place, value in enumerate(values) if value is not None]
    left_out += len(values) - len(scored)
    if not scored:
        return Figure(None, None, 0, chance, unit, left_out, details=details or {})
    mean = mean_with_stderr([values[place] for place in scored], weights and [weights[place] for place in scored])
    return Figure(mean.value, mean.stderr, mean.n, chance, unit, left_out, details=details or {})


@dataclass(frozen=True)
class ItemOutcome:
    """The scores of one item under one measure, for one model.

    Attributes:
        kind, name: as in `MetricKey`.
        item: identifies the item within the measure, the same for every model.
        scores: by metric, such as `acc` (0 or 1).
        weight: of the item in the mean, such as the bytes of a text; None if all count alike.
    """

    kind: str
    name: str
    item: str
    scores: dict[str, float]
    weight: float | None = None


def identify(content: Any) -> str:
    """A short identifier of an item, made from its content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass
class MeasureResult:
    """The result of one measure for one model.

    Attributes:
        figures: by key.
        outcomes: of every item.
        samples: by name of a chat, a few answers with their scores, for reading.
        subtasks: by group of tasks, the figures of its tasks.
    """

    figures: dict[MetricKey, Figure] = field(default_factory=dict)
    outcomes: list[ItemOutcome] = field(default_factory=list)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    subtasks: dict[str, dict[MetricKey, Figure]] = field(default_factory=dict)

    def add(self, other: "MeasureResult") -> None:
        """Add the figures and outcomes of another result."""
        self.figures |= other.figures
        self.outcomes += other.outcomes
        self.samples |= other.samples
        self.subtasks |= other.subtasks
