"""Weights of a mixture, to the row."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.mixture import LONGEST_PERIOD, Mixture


def members(mixture: Mixture, rows: int) -> np.ndarray:
    return mixture.locate(np.arange(rows))[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_every_prefix_is_within_a_row_of_the_wished_shares(weights):
    mixture = Mixture({f"{number:02}": weight for number, weight in enumerate(weights)})
    rows = 2 * mixture.period + 3
    counts = np.cumsum(members(mixture, rows)[:, None] == np.arange(len(weights)), axis=0)  # (rows, members)
    requested = np.arange(1, rows + 1)[:, None] * np.array(weights)  # times the sum of the weights
    bound = 1 - 1 / (2 * len(weights) - 2) if len(weights) > 1 else 0
    assert np.abs(counts * sum(weights) - requested).max() <= bound * sum(weights) + 1e-6
    assert (counts[mixture.period - 1] * sum(weights) == mixture.period * np.array(weights)).all()


def test_many_small_members_beside_a_large_one():
    """Where taking turns by the nearest deadline is off by four rows."""
    mixture = Mixture({"a": 90} | {f"b{number}": 1 for number in range(10)})
    counts = np.cumsum(members(mixture, 100) == 0)
    assert np.abs(counts - 0.9 * np.arange(1, 101)).max() < 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 10**12))
def test_a_row_far_away_is_located_like_a_near_one(weights, turns):
    mixture = Mixture({str(number): weight for number, weight in enumerate(weights)})
    near = np.arange(mixture.period)
    near_members, before = mixture.locate(near)
    far_members, far_before = mixture.locate(near + turns * mixture.period)
    assert np.array_equal(near_members, far_members)
    assert np.array_equal(far_before - before, turns * mixture.weights[near_members])
    for member in range(len(weights)):  # each member's rows are numbered without gaps
        assert np.array_equal(before[near_members == member], np.arange(mixture.weights[member]))


@given(st.integers(0, 300))
def test_counts_are_those_of_the_rows(rows):
    mixture = Mixture({"a": 5, "b": 2, "c": 4})
    assert np.array_equal(mixture.counts(rows), np.bincount(members(mixture, rows), minlength=3))


def test_weights_are_the_decimals_that_were_written():
    """0.1 + 0.2 is 0.3: in binary it is not."""
    assert Mixture({"a": 0.1, "b": 0.2, "c": 0.3}).weights.tolist() == [1, 2, 3]
    assert Mixture({"a": 1e-1, "b": "0.2", "c": "1/3"}).weights.tolist() == [3, 6, 10]
    assert Mixture({"a": 300, "b": 100}).weights.tolist() == [3, 1]
    assert Mixture("folder").weights.tolist() == [1] and Mixture("folder").folders == ["folder"]


def test_the_order_of_the_keys_means_nothing():
    one, other = Mixture({"a": 3, "b": 1}), Mixture({"b": 1, "a": 3})
    assert one.folders == other.folders and np.array_equal(members(one, 8), members(other, 8))


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf, "much", None, True, [1], "1/0"])
def test_a_wrong_weight_is_named(weight):
    with pytest.raises(ValueError, match="'data': the weight of runs/b must be a number above 0, not ") as caught:
        Mixture({"runs/a": 1, "runs/b": weight})
    assert "\n" not in str(caught.value)


def test_weights_of_too_many_digits_are_refused():
    with pytest.raises(ValueError, match="only after 1,234,568 sequences .* fewer digits"):
        Mixture({"a": 1_234_567, "b": 1})
    assert Mixture({"a": LONGEST_PERIOD - 1, "b": 1}).period == LONGEST_PERIOD
    with pytest.raises(ValueError, match="names no folder"):
        Mixture({})
