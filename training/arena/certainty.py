"""Limits of a ranking: votes still missing to tell two models apart, and the votes that decide the first rank."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.arena.ratings import Floats, Ratings, Votes, expected_score, fit_strengths, prior_precision

POWER_QUANTILE = 0.8416212335729143  # of the normal distribution, for 80 %
MOST_VOTES = 100_000  # more are not worth naming
RIVALS = 5  # models below the first that are tried in its place


@dataclass(frozen=True)
class Overthrow:
    """Votes without which another model has the highest rating.

    Attributes:
        votes: number of votes; the smallest one found, so that fewer may do.
        rival: index of the model that is then above the first.
    """

    votes: int
    rival: int


def can_tell(ratings: Ratings, first: int, second: int) -> bool:
    """Whether the 95 % interval of the difference between two models is all on one side of 0."""
    difference, error = ratings.difference(first, second)
    return abs(difference) > ratings.quantile * error


def votes_to_tell(ratings: Ratings, first: int, second: int) -> int | None:
    """More votes on these two that tell them apart with a probability of 80 %, if they differ as much as it seems now.

    Returns:
        0 if the interval of their difference excludes 0 already; None for more than `MOST_VOTES`.
    """
    if can_tell(ratings, first, second):
        return 0
    difference, error = ratings.difference(first, second)
    p = float(expected_score(np.float64(difference)))
    a_vote = p * (1 - p) / (ratings.dispersion or 1.0)  # information about the difference
    needed = ((ratings.quantile + POWER_QUANTILE) / difference) ** 2 if difference else math.inf
    votes = (needed - 1 / error**2) / a_vote
    return max(1, math.ceil(votes)) if votes <= MOST_VOTES else None


def votes_to_overthrow(votes: Votes, ratings: Ratings) -> Overthrow | None:
    """The fewest votes found whose removal gives the highest rating to another model.

    For each rival, votes are removed in the order of their influence on the difference (Huang, Shen, Wei and Broderick,
    "Dropping just a handful of preferences can change top large language model rankings", arXiv:2508.11847), and the
    ratings are computed again.

    Returns:
        None if no removal does it, or there is one model.
    """
    design, score, weight = votes.groups
    precision = prior_precision(votes)
    place, curvature = fit_strengths(design, score, weight, precision)
    residual = score - expected_score(design @ place)
    first, *rivals = np.argsort(-ratings.ratings, kind="stable")[: 1 + RIVALS]
    found = []
    for rival in rivals:
        contrast = np.zeros(design.shape[1])
        contrast[first], contrast[rival] = 1, -1
        influence = (design @ np.linalg.solve(curvature, contrast)) * residual
        order = np.argsort(-influence, kind="stable")
        order = order[influence[order] > 0]

        def is_above(removed: int, rival: int = rival, order: NDArray[np.int64] = order) -> bool:
            left = _without(weight, order, removed)
            strengths, _ = fit_strengths(design, score, left, precision)
            return bool(strengths[rival] > strengths[first])

        fewest = _first_true(is_above, int(weight[order].sum()))
        if fewest is not None:
            found.append(Overthrow(fewest, int(rival)))
    return min(found, key=lambda overthrow: overthrow.votes, default=None)


def _without(weight: Floats, order: NDArray[np.int64], removed: int) -> Floats:
    """The numbers of equal votes, after as many are removed in this order of the groups."""
    left = weight.copy()
    before = np.cumsum(weight[order]) - weight[order]  # votes in the groups that come first
    left[order] -= np.clip(removed - before, 0, weight[order])
    return left


def _first_true(holds: Callable[[int], bool], most: int) -> int | None:
    """The smallest number from 1 to `most` for which a condition holds, by bisection; None if not even for `most`."""
    high = 1
    while high < most and not holds(high):
        high *= 2
    high = min(high, most)
    if high < 1 or not holds(high):
        return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
