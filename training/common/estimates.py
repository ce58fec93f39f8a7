"""Means over items with standard errors, for one model and for the paired difference between two.

Standard errors treat the items as a sample of those that could have been asked; see E. Miller, "Adding Error Bars to
Evals", arXiv:2411.00640, section 2, and section 4.2 for the paired difference.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A mean over items.

    Attributes:
        value: the mean; None if there are no items.
        stderr: its standard error; None for a single item.
        n: number of items.
        chance: the score of random guessing, where guessing makes sense.
    """

    value: float | None
    stderr: float | None
    n: int
    chance: float | None = None

    def near_chance(self) -> bool:
        """Whether the value is within two standard errors of random guessing."""
        if self.chance is None or self.stderr is None:
            return False
        return abs(self.value - self.chance) <= 2 * self.stderr

    def below_chance(self) -> bool:
        """Whether the value is below random guessing by more than two standard errors."""
        if self.chance is None or self.stderr is None:
            return False
        return self.value < self.chance - 2 * self.stderr

    def to_json(self) -> dict[str, Any]:
        """The fields by name, without `chance` where there is none."""
        entry = asdict(self)
        return entry if self.chance is not None else {key: value for key, value in entry.items() if key != "chance"}


@dataclass(frozen=True)
class Difference:
    """The mean difference between two models on the same items.

    Attributes:
        value: the later model's score minus the earlier one's.
        stderr: standard error of the mean of the item-by-item differences; None for a single item.
        n: number of items.
        p: two-sided p-value; None for a single item under the normal test.
        test: "exact McNemar" or "paired normal".
        gained, lost: items that only the later, or only the earlier model has right; None unless scores are 0 and 1.
    """

    value: float
    stderr: float | None
    n: int
    p: float | None
    test: str
    gained: int | None = None
    lost: int | None = None


def mean_with_stderr(
    values: Sequence[float], weights: Sequence[float] | None = None, chance: float | None = None
) -> Estimate:
    """The weighted mean of items.

    Args:
        values: one per item, at least one.
        weights: one per item, such as the bytes of a text; None for equal weights.
        chance: the score of random guessing, where guessing makes sense.

    Returns:
        With equal weights, `stderr` is the sample standard deviation over sqrt(n), as in lm-eval; otherwise that of a
        ratio estimator (W. Cochran, Sampling Techniques, section 6.4).

    Raises:
        ValueError: no items.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an average needs at least one item")
    weights = [1.0] * n if weights is None else weights
    total = math.fsum(weights)
    value = math.fsum(weight * item for weight, item in zip(weights, values, strict=True)) / total
    stderr = None
    if n > 1:
        deviations = [weight * (item - value) for weight, item in zip(weights, values, strict=True)]
        squares = math.fsum(deviation * deviation for deviation in deviations)  # `**` raises where this is infinite
        stderr = math.sqrt(squares * n / (n - 1)) / total
    return Estimate(value, stderr, n, chance)


def proportion(outcomes: Sequence[bool], chance: float | None = None) -> Estimate:
    """The share of true outcomes: `mean_with_stderr` of ones and zeros."""
    return mean_with_stderr([float(outcome) for outcome in outcomes], chance=chance)


def paired_difference(
    before: Sequence[float], after: Sequence[float], weights: Sequence[float] | None = None
) -> Difference:
    """The difference between two models on the same items, with a test of its significance.

    Scores of 0 and 1 are tested with McNemar's exact test (Q. McNemar, Psychometrika 12, 1947), all others with the
    normal distribution of the mean difference over its standard error.

    Args:
        before, after: one score per item each, in the same order.
        weights: as in `mean_with_stderr`.
    """
    differences = [second - first for first, second in zip(before, after, strict=True)]
    mean = mean_with_stderr(differences, weights)
    if weights is None and set(before) | set(after) <= {0.0, 1.0}:
        gained, lost = differences.count(1.0), differences.count(-1.0)
        return Difference(mean.value, mean.stderr, mean.n, mcnemar(gained, lost), "exact McNemar", gained, lost)
    if not mean.stderr:  # a single item, or the same difference everywhere
        p = None if mean.stderr is None else float(mean.value == 0)
    else:
        p = math.erfc(abs(mean.value) / mean.stderr / math.sqrt(2))
    return Difference(mean.value, mean.stderr, mean.n, p, "paired normal")


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value: the probability of a split of the changed items at least as uneven, if both directions
    were equally likely."""
    changed = gained + lost
    logs = (
        math.lgamma(changed + 1) - math.lgamma(k + 1) - math.lgamma(changed - k + 1) - changed * math.log(2)
        for k in range(min(gained, lost) + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))
