"""What a rule is: a measure of a text, a limit, and the words in which it condemns."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from training.corpus.rules.statistics import Statistics

Measure = Callable[[Statistics], float]


@dataclass(frozen=True)
class Rejection:
    """What condemned a text.

    Attributes:
        rule: its name, as it appears in recipes and in the funnel.
        value: what was measured or found.
        limit: what the rule allows.
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
        bound: on which side of the limit a text passes; the limit itself passes.
        ceiling: an upper bound of the measure that costs less; where it is within the limit, nothing is measured.
        evidence: what to show in place of the number.
    """

    name: str
    measure: Measure
    limit: float
    bound: Literal["at least", "at most"]
    ceiling: Measure | None = None
    evidence: Callable[[Statistics], str] | None = None

    @property
    def description(self) -> str:
        """What is measured, and its source."""
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
    """A rule that a text passes whose measure reaches the limit. The function's name is the rule's."""
    return lambda measure: Rule(measure.__name__, measure, limit, "at least")


def at_most(limit: float, evidence: Callable[[Statistics], str] | None = None) -> Callable[[Measure], Rule]:
    """A rule that a text passes whose measure does not exceed the limit."""
    return lambda measure: Rule(measure.__name__, measure, limit, "at most", evidence=evidence)
