"""The next pair of models for a battle: drawn where a vote is expected to correct the ranking most."""

import math
from collections.abc import Sequence

import numpy as np

from training.arena.ratings import Floats, Ratings, expected_score

Pair = tuple[int, int]

SHARPNESS = 2.0  # how strongly the draw prefers the pairs of greater gain; 0 is a uniform draw


def next_pair(ratings: Ratings, waiting: Sequence[Pair], generator: np.random.Generator) -> Pair:
    """Draw two models, in the order of their sides: pairs in proportion to the gain to the power `SHARPNESS`.

    The greatest gain alone would need fewer votes, but a pair is then left as soon as its votes happen to look clear,
    and the intervals of the ratings become too narrow (`benchmarks/arena.py` shows both).

    Args:
        ratings: of at least two models, from the votes so far.
        waiting: pairs of battles without a vote yet. They count as votes, so that many voters at once get different
            pairs.
        generator: draws the pair, and the sides.
    """
    covariance = ratings.posterior
    for pair in waiting:
        covariance = _after_vote(covariance, ratings.strengths, *pair)
    gains = vote_gains(ratings.strengths, covariance)
    chances = (gains / gains.max()) ** SHARPNESS
    drawn = generator.choice(chances.size, p=chances.ravel() / chances.sum())
    first, second = generator.permutation(np.unravel_index(drawn, chances.shape))
    return int(first), int(second)


def vote_gains(strengths: Floats, covariance: Floats) -> Floats:
    """(models, models) by how much a vote on a pair lowers the ranking loss: above the diagonal, 0 elsewhere.

    The ranking loss is the sum over all pairs of the expected strength by which their order is wrong,
    E[max(0, -d sign(mean d))] for a difference d that is normal. A pair whose order is clear adds nothing.
    """
    models = len(strengths)
    gains = np.zeros((models, models))
    before = ranking_loss(strengths, covariance)
    for first in range(models):
        for second in range(first + 1, models):
            after = _after_vote(covariance, strengths, first, second)
            gains[first, second] = max(before - ranking_loss(strengths, after), 1e-12)  # every pair stays possible
    return gains


def ranking_loss(strengths: Floats, covariance: Floats) -> float:
    """The expected strength by which the order of two models is wrong, summed over all pairs."""
    upper = np.triu_indices(len(strengths), 1)
    difference = np.abs(strengths[:, None] - strengths[None, :])[upper]
    variance = np.diag(covariance)
    deviation = np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 1e-18))[upper]
    z = difference / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    tail = np.array([math.erfc(value / math.sqrt(2)) / 2 for value in z])
    return float((deviation * density - difference * tail).sum())


def _after_vote(covariance: Floats, strengths: Floats, first: int, second: int) -> Floats:
    """The covariance after one more vote on a pair, whatever its outcome (Sherman and Morrison)."""
    p = expected_score(strengths[first] - strengths[second])
    contrast = covariance[first] - covariance[second]
    weight = p * (1 - p)
    return covariance - weight * np.outer(contrast, contrast) / (1 + weight * (contrast[first] - contrast[second]))
