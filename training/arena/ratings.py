"""Ratings from votes on pairs: Elo in order of arrival, and Bradley-Terry strengths with 95 % intervals and ranks.

A strength is a natural logarithm of odds: model i scores against model j with probability 1 / (1 + exp(s_j - s_i)). A
rating is a strength on Elo's scale, where 400 points are odds of ten to one, and the mean of the models is 1000.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POINTS = 400 / math.log(10)  # rating points per unit of strength
MEAN = 1000.0  # rating of the average model
PRIOR_SD = 400.0  # rating points: standard deviation of the prior of each strength
K = 32.0  # Elo: most points that one battle moves
FEWEST_VOTERS = 10  # with fewer, votes are taken as independent
VOTES_OF_A_VOTER = 2  # so also with fewer votes for each voter: they have nothing in common to estimate
MOST_REMOVED = 0.5  # share of the variance that voters who contradict themselves may remove
QUANTILE = 1.959963984540054  # of the normal distribution, for 95 %


@dataclass(frozen=True)
class Votes:
    """Votes on pairs of models, one entry a vote, in order of arrival.

    Attributes:
        models: number of models.
        first, second: (votes,) indices of the two models.
        score: (votes,) 1 if the first won, 0 if the second won, 0.5 for a tie.
        voter: (votes,) index of who voted.
        style: (votes, columns) differences between the two answers, see `training.arena.answer_style`; no columns
            without control for style.
    """

    models: int
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    score: Floats
    voter: NDArray[np.int64]
    style: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def design(self) -> Floats:
        """(votes, models + columns): 1 for the first model, -1 for the second, then the style."""
        rows = np.arange(len(self))
        pairs = np.zeros((len(self), self.models))
        pairs[rows, self.first] += 1
        pairs[rows, self.second] -= 1
        return np.hstack([pairs, self.style]) if self.style.size else pairs

    @cached_property
    def groups(self) -> tuple[Floats, Floats, Floats]:
        """Equal votes as one: their rows of the design, their score, and how many there are."""
        if self.style.size:
            return self.design, self.score, np.ones(len(self))
        keys = (self.first * self.models + self.second) * 3 + self.score
        _, rows, counts = np.unique(keys, return_index=True, return_counts=True)
        return self.where(rows).design, self.score[rows], counts.astype(np.float64)

    def where(self, chosen: NDArray) -> "Votes":
        """The votes at these indices, or where a mask is true."""
        style = self.style[chosen] if self.style.size else self.style
        return Votes(
            self.models, self.first[chosen], self.second[chosen], self.score[chosen], self.voter[chosen], style
        )

    def head_to_head(self) -> tuple[Floats, Floats]:
        """(models, models): votes between two models, and the score of the one in the row; a tie scores 0.5."""
        counts, scores = (np.zeros((self.models, self.models)) for _ in range(2))
        np.add.at(counts, (self.first, self.second), 1)
        np.add.at(counts, (self.second, self.first), 1)
        np.add.at(scores, (self.first, self.second), self.score)
        np.add.at(scores, (self.second, self.first), 1 - self.score)
        return counts, scores


@dataclass(frozen=True)
class Ratings:
    """Bradley-Terry ratings.

    Attributes:
        strengths: (models,) of mean 0.
        covariance: (models, models) of the strengths.
        posterior: (models, models) covariance of the strengths if all votes are independent and none is a tie.
        dispersion: variance of a vote's score, as a share of that without ties.
        voters: number of voters by whom the intervals were computed; None if votes are taken as independent.
        style: (columns,) coefficients of the style, in units of strength.
    """

    strengths: Floats
    covariance: Floats
    posterior: Floats
    dispersion: float
    voters: int | None
    style: Floats

    @cached_property
    def ratings(self) -> Floats:
        """(models,) on Elo's scale."""
        return MEAN + POINTS * self.strengths

    @property
    def quantile(self) -> float:
        """Standard errors in half a 95 % interval: of the normal distribution, or of Student's t by the voters."""
        return QUANTILE if self.voters is None else student_quantile(self.voters - 1)

    @cached_property
    def half_widths(self) -> Floats:
        """(models,) of the 95 % intervals, in points."""
        return POINTS * self.quantile * np.sqrt(np.diag(self.covariance))

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """(models,) 1 + the number of models whose lower bound exceeds the model's upper bound (FastChat)."""
        lower, upper = self.ratings - self.half_widths, self.ratings + self.half_widths
        return 1 + (lower[None, :] > upper[:, None]).sum(axis=1)

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """The strength of one model minus that of another, and its standard error."""
        contrast = self.covariance[first] - self.covariance[second]
        variance = contrast[first] - contrast[second]
        return float(self.strengths[first] - self.strengths[second]), math.sqrt(max(variance, 0.0))


def fit_strengths(design: Floats, score: Floats, weight: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """The maximum of the penalized likelihood of a logistic regression, by Newton's method with halved steps.

    Args:
        design: (rows, columns).
        score: (rows,) between 0 and 1.
        weight: (rows,) number of votes of each row.
        precision: (columns,) inverse variances of the Gaussian prior of mean 0.

    Returns:
        (columns,) coefficients and (columns, columns) curvature, the negative second derivative.
    """

    def loss(place: Floats) -> float:
        logits = design @ place
        return float(weight @ (np.logaddexp(0, logits) - score * logits) + precision @ place**2 / 2)

    place = np.zeros(design.shape[1])
    value = loss(place)
    for _ in range(100):
        p = expected_score(design @ place)
        gradient = design.T @ (weight * (p - score)) + precision * place
        curvature = (design.T * (weight * p * (1 - p))) @ design + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        while (new := loss(place - step)) > value + 1e-9 and np.abs(step).max() > 1e-12:
            step /= 2
        place, value = place - step, new
        if np.abs(step).max() < 1e-10:
            break
    p = expected_score(design @ place)
    return place, (design.T * (weight * p * (1 - p))) @ design + np.diag(precision)


def expected_score(difference: Floats) -> Floats:
    """The probability of a win, a tie counting half, by the difference in strength."""
    return 0.5 * (1 + np.tanh(difference / 2))


def student_quantile(degrees: int) -> float:
    """The 97.5 % point of Student's t, within 0.01 from 9 degrees of freedom on (Abramowitz and Stegun, 26.7.5)."""
    z = QUANTILE
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def prior_precision(votes: Votes) -> Floats:
    """(models + columns,) of the prior: `PRIOR_SD` for a strength, a standard deviation of 1 for a style."""
    return np.r_[np.full(votes.models, (POINTS / PRIOR_SD) ** 2), np.ones(votes.design.shape[1] - votes.models)]


def bradley_terry(votes: Votes) -> Ratings:
    """Strengths that make the votes most probable under a weak Gaussian prior, and their covariance.

    A tie is half a win for each (Bradley and Terry, Biometrika 39, 1952; ties as in Chiang et al., "Chatbot Arena",
    arXiv:2403.04132). The covariance is the sandwich H⁻¹ (G + P) H⁻¹ of curvature H, variance G of the score, and
    precision P of the prior. G is the information times the dispersion, which the share of ties determines. With
    enough voters, the products of the scores of different votes of one voter are added (cluster-robust: Liang and
    Zeger, Biometrika 73, 1986). Otherwise votes are taken as independent.

    Args:
        votes: may be none; the ratings are then those of the prior.
    """
    precision = prior_precision(votes)
    place, curvature = fit_strengths(*votes.groups, precision)
    p = expected_score(votes.design @ place)
    information = curvature - np.diag(precision)
    inverse = np.linalg.inv(curvature)
    # A score y of 0, 1/2 or 1 has the variance E[y²] - p² = p(1 - p) - P(tie) / 4. The last terms stand for a vote for
    # one of two equal models and against it, without which a store of ties alone would have a variance of 0.
    plain = float((p * (1 - p)).sum()) + 0.5
    dispersion = 1 - float((votes.score == 0.5).sum()) / 4 / plain
    variance = dispersion * information + np.diag(precision)
    voters = np.unique(votes.voter)
    clustered = len(voters) >= FEWEST_VOTERS and len(votes) >= VOTES_OF_A_VOTER * len(voters)
    if clustered:
        variance = variance + _shared_variance(votes, p, voters, inverse)
    covariance = inverse @ variance @ inverse
    models = slice(votes.models)
    centred = np.eye(votes.models) - 1 / votes.models  # the mean is fixed, so its uncertainty is not part of a rating
    return Ratings(
        place[models],
        centred @ covariance[models, models] @ centred,
        centred @ inverse[models, models] @ centred,
        dispersion,
        len(voters) if clustered else None,
        place[votes.models :],
    )


def _shared_variance(votes: Votes, p: Floats, voters: NDArray[np.int64], inverse: Floats) -> Floats:
    """(columns, columns) products of the scores of different votes of one voter, summed over the voters.

    In no direction do they remove more than `MOST_REMOVED` of the posterior variance, as few voters might by chance.
    """
    scores = votes.design * (votes.score - p)[:, None]
    totals = np.zeros((len(voters), scores.shape[1]))
    np.add.at(totals, np.searchsorted(voters, votes.voter), scores)
    products = (totals.T @ totals - scores.T @ scores) * len(voters) / (len(voters) - 1)
    root = np.linalg.cholesky(inverse)
    values, vectors = np.linalg.eigh(root.T @ products @ root)
    back = np.linalg.solve(root.T, vectors * np.maximum(values, -MOST_REMOVED))
    return back @ np.linalg.solve(root.T, vectors).T


def elo(votes: Votes, k: float = K) -> Floats:
    """(models,) Elo ratings (A. Elo, "The Rating of Chessplayers", 1978) after the votes in their order.

    Each model begins at `MEAN`. The result depends on the order: `bradley_terry` does not.
    """
    ratings = np.full(votes.models, MEAN)
    for first, second, score in zip(votes.first, votes.second, votes.score, strict=True):
        change = k * (score - 1 / (1 + 10 ** ((ratings[second] - ratings[first]) / 400)))
        ratings[first] += change
        ratings[second] -= change
    return ratings
