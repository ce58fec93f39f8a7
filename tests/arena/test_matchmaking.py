"""The next pair: where the order is open, with the sides drawn, and different for many voters at once."""

from collections import Counter

import numpy as np
import pytest

from training.arena.matchmaking import next_pair, ranking_loss, vote_gains
from training.arena.ratings import Votes, bradley_terry


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


def test_gains_are_what_a_vote_removes_from_the_loss():
    found = bradley_terry(votes_of((0, 1, 12, 8), (0, 2, 14, 6), (1, 2, 12, 8)))
    gains = vote_gains(found.strengths, found.posterior)
    assert (gains[np.triu_indices(3, 1)] > 0).all() and not gains[np.tril_indices(3)].any()
    assert gains.max() < ranking_loss(found.strengths, found.posterior)
