"""The next pair: where the order is open, with the sides drawn, and different for many voters at once."""

from collections import Counter

import numpy as np
import pytest

from training.arena.matchmaking import _expected_error, next_pair, vote_gains
from training.arena.ratings import Votes, bradley_terry, expected_score


def votes_of(*pairs: tuple[int, int, int, int], models: int = 3) -> Votes:
    """Votes of (first, second, wins of the first, wins of the second)."""
    rows = [(a, b, score) for a, b, won, lost in pairs for score in [1.0] * won + [0.0] * lost]
    first, second, score = map(np.array, zip(*rows, strict=True))
    return Votes(models, first, second, score, first * 0)


def test_votes_go_where_the_order_is_open():
    found = bradley_terry(votes_of((0, 1, 20, 20), (0, 2, 38, 2), (1, 2, 38, 2)))
    drawn = Counter(next_pair(found, [], np.random.default_rng(n)) for n in range(300))
    open_pair = drawn[0, 1] + drawn[1, 0]
    assert open_pair > 250
    assert drawn[0, 1] == pytest.approx(drawn[1, 0], rel=0.5)  # the sides are drawn too


def test_a_new_model_is_drawn_first():
    found = bradley_terry(votes_of((0, 1, 12, 8), (0, 2, 14, 6), (1, 2, 12, 8), models=4))
    drawn = [next_pair(found, [], np.random.default_rng(n)) for n in range(100)]
    assert sum(3 in pair for pair in drawn) > 90


def test_pairs_without_votes_yet_count():
    found = bradley_terry(votes_of((0, 1, 5, 5), (0, 2, 5, 5), (1, 2, 5, 5)))
    waiting = [(0, 1)] * 30
    drawn = [set(next_pair(found, waiting, np.random.default_rng(n))) for n in range(200)]
    assert drawn.count({0, 1}) < 40


def test_gains_are_those_of_a_vote_that_is_counted():
    """The covariance after a vote on a pair, by inverting the curvature with that vote in it."""
    found = bradley_terry(votes_of((0, 1, 12, 8), (0, 2, 14, 6), (1, 2, 12, 8), models=3))
    curvature = np.linalg.inv(found.posterior + 1 / 3)  # of the differences, and of the mean, which is fixed
    pairs = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1]])
    differences = pairs @ found.strengths

    def loss(covariance):
        return _expected_error(differences, np.diag(pairs @ covariance @ pairs.T)).sum()

    p = expected_score(differences)
    expected = [
        loss(np.linalg.inv(curvature)) - loss(np.linalg.inv(curvature + q * (1 - q) * np.outer(pair, pair)))
        for pair, q in zip(pairs, p, strict=True)
    ]
    np.testing.assert_allclose(vote_gains(found.strengths, found.posterior), expected, rtol=1e-6)
