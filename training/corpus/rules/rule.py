"""The parts of a rule: a measure of a text, a limit, and the rejection of a text beyond it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from training.corpus.rules.statistics import Statistics

Measure = Callable[[Statistics], float]


@dataclass(frozen=True)
class Rejection:
    """The reason why a rule rejects a text.

    Attributes:
        rule: name of the rule, as in recipes and in the funnel.
        value: the measured value, or the text found.
        limit: the values that the rule allows.
    """

    rule: str
    value: float | str
    limit: str

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else f"{self.value:.4g}"
        return f"{self.rule}: {value} ({self.limit})"


@dataclass(frozen=True)
class Rule:
    """A limit to a measure of a text.

    Attributes:
        limit: as published, until `with_limit` sets another.
        bound: the side of the limit on which a text passes; the limit itself passes.
        ceiling: a cheaper upper bound of the measure; if it is within the limit, nothing is measured.
        evidence: text to show instead of the number.
    """

    name: str
    measure: Measure
    limit: float
    bound: Literal["at least", "at most"]
    ceiling: Measure | None = None
    evidence: Callable[[Statistics], str] | None = None

    @property
    def description(self) -> str:
        """The measure and its source, in one line."""
        return " ".join(getattr(self.measure, "func", self.measure).__doc__.split())

    def with_limit(self, limit: float) -> "Rule":
        return replace(self, limit=limit)

    def __call__(self, text: Statistics) -> Rejection | None:
        if self.ceiling is not None and self.ceiling(text) <= self.limit:
            return None
        value = self.measure(text)
        if value < self.limit if self.bound == "at least" else value > self.limit:
            shown = value if self.evidence is None else self.evidence(text)
            return Rejection(self.name, shown, f"{self.bound} {self.limit:g}")
        return None


def at_least(limit: float) -> Callable[[Measure], Rule]:
    """Make a rule that passes texts whose measure reaches the limit. The function's name is the rule's."""
    return lambda measure: Rule(measure.__name__, measure, limit, "at least")


def at_most(limit: float, evidence: Callable[[Statistics], str] | None = None) -> Callable[[Measure], Rule]:
    """Make a rule that passes texts whose measure does not exceed the limit."""
    return lambda measure: Rule(measure.__name__, measure, limit, "at most", evidence=evidence)
