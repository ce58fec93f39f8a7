"""Averages and their errors against numpy and against enumeration."""

import itertools
import math

import numpy as np
import pytest

from training.common.estimates import Estimate, mcnemar, mean_with_stderr, paired_difference, proportion


def test_share_and_its_standard_error():
    outcomes = [True, True, False, True]
    estimate = proportion(outcomes, chance=0.25)
    assert estimate.value == 0.75 and estimate.n == 4 and estimate.chance == 0.25
    assert estimate.stderr == pytest.approx(np.std(outcomes, ddof=1) / math.sqrt(4))
    assert proportion(outcomes).chance is None and "chance" not in proportion(outcomes).to_json()
    assert estimate.to_json() == {"value": 0.75, "stderr": estimate.stderr, "n": 4, "chance": 0.25}


def test_one_outcome_has_no_error_to_speak_of():
    assert proportion([True]).stderr is None
    with pytest.raises(ValueError):
        proportion([])


def test_weights_count_items_by_their_size():
    estimate = mean_with_stderr([1.0, 3.0], weights=[3.0, 1.0])
    assert estimate.value == 1.5
    assert estimate.stderr == pytest.approx(math.sqrt(2 * ((3 * 0.5) ** 2 + 1.5**2)) / 4)
    equal, unweighted = mean_with_stderr([1.0, 3.0, 4.0], weights=[2.0] * 3), mean_with_stderr([1.0, 3.0, 4.0])
    assert equal.stderr == pytest.approx(unweighted.stderr)


def test_the_error_of_a_ratio_is_what_resampling_gives():
    """Within 5 %, of pieces of very unlike size."""
    draw = np.random.default_rng(0)
    sizes = draw.uniform(100, 3000, 400)
    rates = draw.normal(2, 0.5, 400)
    picks = draw.integers(0, 400, (4000, 400))
    resampled = (rates[picks] * sizes[picks]).sum(1) / sizes[picks].sum(1)
    assert mean_with_stderr(rates.tolist(), sizes.tolist()).stderr == pytest.approx(resampled.std(), rel=0.05)


def test_near_chance_is_two_standard_errors():
    assert Estimate(0.32, 0.04, 100, 0.25).near_chance()
    assert Estimate(0.20, 0.04, 100, 0.25).near_chance()
    assert not Estimate(0.34, 0.04, 100, 0.25).near_chance()
    assert not Estimate(0.34, 0.04, 100, None).near_chance()
    assert not Estimate(0.5, None, 100, 0.5).near_chance()


@pytest.mark.parametrize("gained, lost", [(0, 0), (1, 9), (4, 4), (7, 3), (0, 5)])
def test_mcnemar_counts_all_ways_the_changes_could_have_fallen(gained, lost):
    changed = gained + lost
    unlike = abs(gained - lost)
    ways = [abs(2 * sum(signs) - changed) >= unlike for signs in itertools.product((0, 1), repeat=changed)]
    assert mcnemar(gained, lost) == pytest.approx(sum(ways) / len(ways))


def test_a_difference_is_taken_item_by_item():
    before, after = [0.0, 1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]
    difference = paired_difference(before, after)
    assert difference.value == pytest.approx(0.2) and difference.n == 5
    assert difference.stderr == pytest.approx(np.std(np.subtract(after, before), ddof=1) / math.sqrt(5))
    assert (difference.gained, difference.lost, difference.p) == (2, 1, 1.0)
    assert difference.test == "exact McNemar"


def test_a_small_gain_everywhere_is_certain_where_the_scores_are_not():
    scores = np.random.default_rng(0).normal(0, 10, 50)
    gains = np.random.default_rng(1).normal(0.5, 0.1, 50)
    difference = paired_difference(scores.tolist(), (scores + gains).tolist())
    assert difference.test == "paired normal" and difference.p < 1e-6
    assert difference.value < mean_with_stderr(scores.tolist()).stderr  # which unpaired would be nothing
    assert paired_difference([1.5], [2.5]).p is None
    assert paired_difference([1.5, 2.5], [1.5, 2.5]).p == 1.0
