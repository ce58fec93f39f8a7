"""Ratings of the arena: equal to other libraries', with intervals that cover, and independent of the order."""

import numpy as np
import pytest

from benchmarks.arena import coverage, draw_strengths, draw_votes
from training.arena.ratings import (
    MEAN,
    POINTS,
    PRIOR_SD,
    Ratings,
    Votes,
    bradley_terry,
    elo,
    expected_score,
    prior_precision,
    student_quantile,
)


def some_votes(models=4, per_pair=30, voters=3, taste=0.0, seed=0) -> Votes:
    generator = np.random.default_rng(seed)
    return draw_votes(draw_strengths(models, 200, generator), per_pair, voters, taste, generator)


def test_strengths_equal_those_of_choix():
    choix = pytest.importorskip("choix")
    votes = some_votes()
    pairs = []  # choix knows wins only: a tie is one win for each, and a win is two
    for first, second, score in zip(votes.first, votes.second, votes.score, strict=True):
        pairs += [(first, second)] * int(2 * score) + [(second, first)] * int(2 - 2 * score)
    ridge = prior_precision(votes)[0]  # twice the votes, twice the ridge, of which choix takes half
    expected = choix.opt_pairwise(4, pairs, alpha=ridge, method="Newton-CG", tol=1e-12)
    np.testing.assert_allclose(bradley_terry(votes).strengths, expected, atol=1e-6)


@pytest.mark.parametrize("style", [False, True])
def test_strengths_equal_those_of_logistic_regression(style):
    from sklearn.linear_model import LogisticRegression

    votes = some_votes(models=3)
    if style:
        columns = np.random.default_rng(1).normal(size=(len(votes), 2))
        votes = Votes(votes.models, votes.first, votes.second, votes.score, votes.voter, columns)
    scale = prior_precision(votes) ** -0.5  # scikit-learn has one ridge for all columns
    rows = np.vstack([votes.design, votes.design]) * scale
    outcome = np.r_[np.ones(len(votes)), np.zeros(len(votes))]
    weights = np.r_[votes.score, 1 - votes.score]
    other = LogisticRegression(fit_intercept=False, C=1.0, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    expected = other.fit(rows[weights > 0], outcome[weights > 0], weights[weights > 0]).coef_[0] * scale
    found = bradley_terry(votes)
    np.testing.assert_allclose(np.r_[found.strengths, found.style], expected, atol=1e-6)


def test_elo_equals_that_of_evalica():
    evalica = pytest.importorskip("evalica")
    votes = some_votes()
    outcome = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    winners = [outcome[score] for score in votes.score]
    scores = evalica.elo(votes.first.tolist(), votes.second.tolist(), winners, initial=MEAN, k=32.0, scale=400.0).scores
    np.testing.assert_allclose(elo(votes), scores.sort_index().to_numpy(), atol=1e-6)


def test_without_ties_the_prior_vanishes_as_in_evalica():
    evalica = pytest.importorskip("evalica")
    votes = some_votes(per_pair=20_000)
    outcome = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    winners = [outcome[score] for score in votes.score]
    found = evalica.bradley_terry(
        votes.first.tolist(), votes.second.tolist(), winners, tie_weight=0.5, tolerance=1e-12, limit=10_000
    )
    logs = np.log(found.scores.sort_index().to_numpy())
    np.testing.assert_allclose(bradley_terry(votes).strengths, logs - logs.mean(), atol=1e-3)


def test_the_order_of_votes_matters_to_elo_only():
    votes = some_votes()
    turned = votes.where(np.arange(len(votes))[::-1])
    np.testing.assert_allclose(bradley_terry(votes).ratings, bradley_terry(turned).ratings, atol=1e-6)
    assert np.abs(elo(votes) - elo(turned)).max() > 1


def test_an_unbeaten_model_has_a_finite_rating_with_a_wide_interval():
    ten = np.zeros(10, dtype=np.int64)
    found = bradley_terry(Votes(2, ten, ten + 1, np.ones(10), ten))
    assert MEAN < found.ratings[0] < MEAN + 2 * PRIOR_SD and found.ratings.sum() == pytest.approx(2 * MEAN)
    assert 100 < found.half_widths[0] < 400
    nothing = bradley_terry(Votes(2, ten[:0], ten[:0], np.ones(0), ten[:0]))
    assert nothing.ratings.tolist() == [MEAN, MEAN] and nothing.half_widths[0] > 500
    ties = bradley_terry(Votes(2, ten, ten + 1, np.full(10, 0.5), ten))
    assert ties.half_widths[0] > 10


def test_intervals_cover_the_known_strengths():
    """A thousand arenas of every condition: benchmarks/arena.py."""
    shares = [coverage(150, models, 20, seed=1)["coverage"] for models in (3, 6)]
    shares.append(coverage(150, 4, 20, voters=20, taste=0.3, seed=1)["coverage"])
    assert all(0.93 <= share <= 0.97 for share in shares), shares


def test_intervals_by_voter_are_those_of_a_bootstrap_by_voter():
    votes = some_votes(models=3, per_pair=60, voters=30, taste=0.6)
    found, generator = bradley_terry(votes), np.random.default_rng(0)
    assert found.voters == 30
    groups = [np.flatnonzero(votes.voter == voter) for voter in range(30)]
    resampled = [
        bradley_terry(votes.where(np.concatenate([groups[n] for n in generator.integers(0, 30, 30)]))).ratings
        for _ in range(300)
    ]
    deviations = found.half_widths / found.quantile
    np.testing.assert_allclose(deviations, np.std(resampled, axis=0), rtol=0.25)
    independent = bradley_terry(Votes(3, votes.first, votes.second, votes.score, votes.voter * 0)).half_widths
    assert found.half_widths.mean() > 1.2 * independent.mean()


def test_ranks_are_those_of_intervals_that_do_not_overlap():
    deviations = np.array([10, 10, 10, 60]) / POINTS / 1.96
    ratings = Ratings(np.array([100, 90, 0, 40]) / POINTS, np.diag(deviations**2), np.eye(4), 1.0, None, np.zeros(0))
    assert ratings.ranks.tolist() == [1, 1, 3, 1]


def test_style_is_separated_from_strength():
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 3, 4000), generator.integers(0, 3, 4000)
    first, second = first[first != second], second[first != second]
    words = generator.normal(size=len(first)) + 0.8 * (first == 0) - 0.8 * (second == 0)  # model 0 writes much
    score = (generator.random(len(first)) < expected_score(1.0 * words)).astype(float)  # and length is all that counts
    votes = Votes(3, first, second, score, first * 0, words[:, None])
    plain = bradley_terry(Votes(3, first, second, score, first * 0))
    controlled = bradley_terry(votes)
    assert plain.ratings[0] - MEAN > 50 > 25 > abs(controlled.ratings[0] - MEAN)
    assert controlled.style[0] == pytest.approx(1.0, abs=0.15)


def test_the_quantile_of_students_t():
    from scipy.stats import t

    for degrees in (9, 19, 99):
        assert student_quantile(degrees) == pytest.approx(t.ppf(0.975, degrees), abs=0.01)
