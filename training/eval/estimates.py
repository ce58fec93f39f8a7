"""A share of yes-or-no outcomes with its standard error."""

import math
from collections.abc import Sequence
from typing import Any


def share(outcomes: Sequence[bool], chance: float | None = None) -> dict[str, Any]:
    """The share of true outcomes, as kept in results.json.

    Args:
        outcomes: one entry a trial, at least one.
        chance: the share a guess would reach, where guessing means something.

    Returns:
        `value`, `stderr` (sample standard deviation over sqrt(n), as lm-eval computes it for accuracies; None for a
        single trial), `n` and, if given, `chance`.

    Raises:
        ValueError: no outcomes.
    """
    n = len(outcomes)
    if n == 0:
        raise ValueError("a share needs at least one outcome")
    value = sum(outcomes) / n
    stderr = math.sqrt(value * (1 - value) / (n - 1)) if n > 1 else None
    estimate = {"value": value, "stderr": stderr, "n": n}
    return estimate if chance is None else {**estimate, "chance": chance}
