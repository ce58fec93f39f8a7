"""The next pair of models for a battle: drawn where a vote is expected to correct the ranking most."""

import math
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from training.arena.ratings import Floats, Ratings, Votes, bradley_terry, expected_score
from training.arena.results import SCORES, Filter, read_results
from training.arena.store import Kind, Store, Winner

Pair = tuple[int, int]

SHARPNESS = 2.0  # how strongly the draw prefers the pairs of greater gain; 0 is a uniform draw


class Matchmaker:
    """Draws the pairs of a running arena, from the votes on them so far, which may arrive from several threads.

    Args:
        models: fingerprints of the contestants, at least two, unlike each other.
        seed: of the draw; None for a random one.
    """

    def __init__(self, models: Sequence[str], seed: int | None = None):
        self.models = list(models)
        self._places = {model: place for place, model in enumerate(models)}
        self._draw = np.random.default_rng(seed)
        self._first, self._second, self._score = array("q"), array("q"), array("d")  # two places, score of the first
        self._ratings: Ratings | None = None  # of these votes
        self._changing = threading.Lock()  # guards the two

    def read(self, store: Store, kind: Kind) -> None:
        """Count the votes of a kind that a store has already."""
        for verdict in read_results(store, Filter(kind)).verdicts:
            self.count(verdict.battle.model_a, verdict.battle.model_b, verdict.winner)

    def count(self, model_a: str, model_b: str, winner: Winner) -> None:
        """Count a vote; one on a model that is not a contestant does not count."""
        if model_a in self._places and model_b in self._places:
            with self._changing:
                self._first.append(self._places[model_a])
                self._second.append(self._places[model_b])
                self._score.append(SCORES[winner])
                self._ratings = None

    def next_pair(self, waiting: Iterable[tuple[str, str]]) -> tuple[str, str]:
        """Two contestants, in the order of their sides, where a vote is expected to correct the ranking most.

        Args:
            waiting: pairs of battles without a vote, which count as if they had one.
        """
        with self._changing:
            if self._ratings is None:
                columns = [np.array(column) for column in (self._first, self._second, self._score)]
                one_voter = np.zeros(len(self._score), np.int64)
                self._ratings = bradley_terry(Votes(len(self.models), *columns, one_voter))
            ratings = self._ratings
        places = [(self._places[first], self._places[second]) for first, second in waiting]
        first, second = next_pair(ratings, places, self._draw)
        return self.models[first], self.models[second]


def next_pair(ratings: Ratings, waiting: Sequence[Pair], generator: np.random.Generator) -> Pair:
    """Draw two models, in the order of their sides: pairs in proportion to the gain to the power `SHARPNESS`.

    The greatest gain alone would need fewer votes, but a pair is then left as soon as its votes happen to look clear,
    and the intervals of the ratings become too narrow.

    Args:
        ratings: of at least two models, from the votes so far.
        waiting: pairs of battles without a vote yet. They count as votes, so that many voters at once get different
            pairs.
        generator: draws the pair, and the sides.
    """
    covariance = ratings.posterior
    for (first, second), count in Counter(tuple(sorted(pair)) for pair in waiting).items():
        contrast = covariance[first] - covariance[second]
        weight = count * _information(ratings.strengths[first] - ratings.strengths[second])
        covariance = covariance - np.outer(contrast, contrast) / (1 / weight + contrast[first] - contrast[second])
    gains = vote_gains(ratings.strengths, covariance)
    chances = (gains / gains.max()) ** SHARPNESS
    drawn = generator.choice(len(gains), p=chances / chances.sum())
    first, second = generator.permutation([side[drawn] for side in np.triu_indices(len(covariance), 1)])
    return int(first), int(second)


def vote_gains(strengths: Floats, covariance: Floats) -> Floats:
    """(pairs,) by how much one more vote on each pair lowers the ranking loss, whatever its outcome.

    The loss is the sum over all pairs of the expected strength by which their order is wrong, E[max(0, -d sign(E d))]
    for a normal difference d: a vote on a pair whose order is clear hardly lowers it.

    Args:
        strengths: (models,).
        covariance: (models, models).

    Returns:
        In the order of `np.triu_indices(models, 1)`; above 0, so that every pair stays possible.
    """
    first, second = np.triu_indices(len(strengths), 1)
    difference = strengths[first] - strengths[second]  # (pairs,)
    contrasts = covariance[first] - covariance[second]  # (pairs, models)
    shared = contrasts[:, first] - contrasts[:, second]  # (pairs, pairs) covariance of the differences
    variance = np.diag(shared)
    change = shared**2 / (1 / _information(difference) + variance)[:, None]  # Sherman and Morrison
    before = _expected_error(difference, variance)
    after = _expected_error(difference, variance - change)
    return np.maximum((before - after).sum(axis=1), 1e-12)


def _information(difference: Floats) -> Floats:
    """The precision that a vote adds to a difference in strength."""
    p = expected_score(difference)
    return p * (1 - p)


def _expected_error(difference: Floats, variance: Floats) -> Floats:
    """The expected strength by which the order is wrong, of normal differences with this mean and variance."""
    deviation = np.sqrt(np.maximum(variance, 1e-18))
    z = np.abs(difference) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return deviation * density - np.abs(difference) * _tail(z)


def _tail(z: Floats) -> Floats:
    """The probability that a standard normal variable exceeds z."""
    return np.array([math.erfc(value / math.sqrt(2)) / 2 for value in z.ravel()]).reshape(z.shape)
