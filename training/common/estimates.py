"""Averages over items with their standard errors, of one model and of the difference between two on the same items.

Standard errors treat the items as a sample of those that could have been asked; see E. Miller, "Adding Error Bars to
Evals", arXiv:2411.00640, section 2, and section 4.2 for the paired difference.
"""

import math
from collections.abc import Sequence
from typing import Any


def mean_with_stderr(
    values: Sequence[float], weights: Sequence[float] | None = None, chance: float | None = None
) -> dict[str, Any]:
    """The weighted mean of items, as kept in results.json.

    Args:
        values: one an item, at least one.
        weights: of the items, such as the bytes of a text; equal ones if None.
        chance: what a guess would reach, where guessing means something.

    Returns:
        `value`, `stderr` (None for a single item), `n` and, if given, `chance`. With equal weights `stderr` is the
        sample standard deviation over sqrt(n), as lm-eval has it for accuracies; otherwise that of a ratio estimator
        (W. Cochran, Sampling Techniques, section 6.4).

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
        squares = math.fsum((weight * (item - value)) ** 2 for weight, item in zip(weights, values, strict=True))
        stderr = math.sqrt(squares * n / (n - 1)) / total
    estimate = {"value": value, "stderr": stderr, "n": n}
    return estimate if chance is None else {**estimate, "chance": chance}


def proportion(outcomes: Sequence[bool], chance: float | None = None) -> dict[str, Any]:
    """The share of true outcomes: `average` of ones and zeros."""
    return mean_with_stderr([float(outcome) for outcome in outcomes], chance=chance)


def near_chance(figure: dict[str, Any]) -> bool:
    """Whether a score lies within two standard errors of what a guess would reach."""
    if figure.get("chance") is None or figure.get("stderr") is None:
        return False
    return abs(figure["value"] - figure["chance"]) <= 2 * figure["stderr"]


def paired_difference(
    before: Sequence[float], after: Sequence[float], weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """How much better or worse `after` is on the same items, and how likely such a difference is by luck alone.

    Args:
        before, after: one value an item each, in the same order.
        weights: as in `average`.

    Returns:
        `value` (after minus before), `stderr` of the mean of the differences item by item, `n`, `p` (two-sided) and
        `test`. For outcomes of 0 and 1 the test is McNemar's, exact (Q. McNemar, Psychometrika 12, 1947), with
        `gained` and `lost`, the items on which only one of the two is right; for others it takes the difference over
        its standard error as normal. `p` is None for a single item of the latter kind.
    """
    differences = [second - first for first, second in zip(before, after, strict=True)]
    estimate = mean_with_stderr(differences, weights)
    if weights is None and set(before) | set(after) <= {0.0, 1.0}:
        gained, lost = differences.count(1.0), differences.count(-1.0)
        counts = {"gained": gained, "lost": lost}
        return {**estimate, "p": mcnemar(gained, lost), "test": "exact McNemar", **counts}
    if not estimate["stderr"]:  # a single item, or the same difference everywhere
        p = None if estimate["stderr"] is None else float(estimate["value"] == 0)
    else:
        p = math.erfc(abs(estimate["value"]) / estimate["stderr"] / math.sqrt(2))
    return {**estimate, "p": p, "test": "paired normal"}


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p: how likely a split of the changed items as uneven as this is, were both equally likely."""
    changed = gained + lost
    logs = (
        math.lgamma(changed + 1) - math.lgamma(k + 1) - math.lgamma(changed - k + 1) - changed * math.log(2)
        for k in range(min(gained, lost) + 1)
    )
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))
