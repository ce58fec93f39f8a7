"""Lines of YAML for the recipes that the planner writes: comments in one column, round numbers."""

import math

_COLUMN = 36  # of comments


def line(text: str, comment: str = "") -> str:
    """A line, with a comment in the column of comments."""
    return f"{text:<{_COLUMN - 1}} # {comment}" if comment else text


def rounded_up(value: float, digits: int = 2) -> str:
    """A whole number of so many digits that is not below the value, such as 21_000_000."""
    unit = 10 ** max(0, math.floor(math.log10(value)) + 1 - digits)
    return f"{math.ceil(value / unit) * unit:_}"


def one_two_five(value: float) -> int:
    """The largest of 1, 2, 5, 10, 20, 50 and so on that is not above the value; at least 1."""
    unit = 10 ** max(0, math.floor(math.log10(max(1.0, value))))
    return int(max(factor for factor in (1, 2, 5) if factor * unit <= max(1.0, value)) * unit)
