"""Mixtures: the exact shares of several folders of shards in the sequences of a run."""

import math
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

LONGEST_PERIOD = 100_000  # sequences after which the order of members repeats


class Mixture:
    """The member of each sequence of a run, as a function of its place.

    After any number of sequences, every member has had its share, within less than one sequence: this is the chairman
    assignment problem (Tijdeman 1980, https://doi.org/10.1016/0012-365X(80)90269-1). With m members no share is off
    by more than 1 - 1 / (2m - 2) sequences.

    Args:
        data: a folder, or a mapping of folders to weights: numbers above 0 in any unit.
        key: recipe key of the data, for error messages.

    Attributes:
        folders: the members, sorted: a recipe means the same in whatever order its keys are written.
        weights: (members,) the smallest whole numbers in the requested proportions.
        period: sequences after which the order of members repeats, the sum of the weights.

    Raises:
        ValueError: no folder, a weight that is not a number above 0, or weights with too many digits.
    """

    def __init__(self, data: str | dict[str, Any], key: str = "data"):
        requested = data if isinstance(data, dict) else {data: 1}
        if not requested:
            raise ValueError(f"'{key}' names no folder of shards; give at least one")
        fractions = {str(folder): _weight(folder, weight, key) for folder, weight in requested.items()}
        self.folders = sorted(fractions)
        common = math.lcm(*(fraction.denominator for fraction in fractions.values()))
        numbers = [int(fractions[folder] * common) for folder in self.folders]
        divisor = math.gcd(*numbers)
        self.period = sum(numbers) // divisor
        if self.period > LONGEST_PERIOD:
            raise ValueError(
                f"'{key}': these weights repeat only after {self.period:,} sequences (the limit is "
                f"{LONGEST_PERIOD:,}); round them to fewer digits"
            )
        self.weights = np.array(numbers) // divisor

    @property
    def shares(self) -> np.ndarray:
        """Shares of the members, (members,), adding up to 1."""
        return self.weights / self.period

    def locate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The member of each place, and the number of sequences it has had before; both (places,)."""
        turns, rests = np.divmod(places, self.period)
        members = self._members[rests]
        return members, turns * self.weights[members] + self._before[rests]

    def counts(self, sequences: int) -> np.ndarray:
        """Numbers of each member's sequences among the first `sequences` of the run, (members,)."""
        turns, rest = divmod(sequences, self.period)
        return turns * self.weights + np.bincount(self._members[:rest], minlength=len(self.weights))

    def most(self, sequences: int) -> np.ndarray:
        """The most sequences that each member has among `sequences` in a row, rounded up, (members,)."""
        return -(-sequences * self.weights // self.period)

    @cached_property
    def _members(self) -> np.ndarray:
        """The member of each sequence of a period, (period,)."""
        # In units of 1 / slack sequences: a member may take a sequence as soon as it is owed one unit, and must take it
        # before it is owed more than slack - 1. Of those that may, the one with the earliest deadline is next.
        slack = max(2, 2 * len(self.weights) - 2)
        weights, taken = self.weights.tolist(), [0] * len(self.weights)

        def earliest(member: int) -> int:
            return -(-(1 + slack * taken[member]) * self.period // (slack * weights[member]))

        def latest(member: int) -> int:
            return (slack * (taken[member] + 1) - 1) * self.period // (slack * weights[member]) + 1

        order, window = [], [(latest(member), member, earliest(member)) for member in range(len(weights))]
        for sequence in range(1, self.period + 1):
            _, member, _ = min(candidate for candidate in window if candidate[2] <= sequence)
            taken[member] += 1
            window[member] = latest(member), member, earliest(member)
            order.append(member)
        return np.array(order)

    @cached_property
    def _before(self) -> np.ndarray:
        """For each sequence of a period, the number of earlier ones of the same member, (period,)."""
        before = np.empty_like(self._members)
        for member, weight in enumerate(self.weights):
            before[self._members == member] = np.arange(weight)
        return before


def _weight(folder: str, weight: Any, key: str) -> Fraction:
    try:
        fraction = Fraction(str(weight))  # the decimal as written, not its binary neighbour
    except (ValueError, ZeroDivisionError):
        fraction = Fraction(0)
    if fraction <= 0:
        raise ValueError(f"'{key}': the weight of {folder} must be a number above 0, not {weight!r}")
    return fraction
