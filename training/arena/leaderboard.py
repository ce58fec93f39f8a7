"""The leaderboard of an arena: ratings with intervals, head-to-head counts, what the votes cannot tell yet, history."""

import csv
import io
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.arena.answer_style import COLUMNS
from training.arena.certainty import MOST_VOTES, can_tell, votes_to_overthrow, votes_to_tell
from training.arena.ratings import POINTS, Ratings, Votes, bradley_terry, elo
from training.arena.results import Results
from training.common.errors import UserError
from training.common.tables import as_text

CHECKPOINTS = 40  # at most, in the history


@dataclass(frozen=True)
class Row:
    """A model in the leaderboard.

    Attributes:
        rank: 1 + the number of models that are better beyond their intervals.
        rating, lower, upper: Bradley-Terry, with the 95 % interval.
        elo: in order of arrival.
        battles, wins, ties, losses: numbers of votes.
        tells_from_next: whether the votes tell this model from the next one; None for the last.
        votes_to_tell: more votes on these two that would; None if there are none or too many to name.
    """

    rank: int
    name: str
    fingerprint: str
    rating: float
    lower: float
    upper: float
    elo: float
    battles: int
    wins: int
    ties: int
    losses: int
    tells_from_next: bool | None
    votes_to_tell: int | None


@dataclass(frozen=True)
class Moment:
    """Ratings at one time.

    Attributes:
        votes: number of votes so far.
        time: of the last one, seconds since 1970.
        ratings: in the order of the rows; None before a model's first vote.
    """

    votes: int
    time: float
    ratings: list[float | None]


@dataclass(frozen=True)
class Leaderboard:
    """Everything that the votes say about the models.

    Attributes:
        rows: from the highest rating to the lowest; the matrices have the same order.
        battles: (models, models) votes between two models.
        win_rates: (models, models) score of the row's model against the column's, a tie half; None without votes.
        votes, leaked: votes that count, and battles left out.
        voters: different voters.
        by_voter: whether the intervals are computed by voter; otherwise votes are taken as independent.
        overthrow_votes, overthrow_rival: votes that would have to vanish for the rival to have the highest rating; None
            if no removal does it.
        style: coefficients by column of `answer_style`, in rating points; empty without control for style.
    """

    rows: list[Row]
    battles: list[list[int]]
    win_rates: list[list[float | None]]
    votes: int
    leaked: int
    voters: int
    by_voter: bool
    overthrow_votes: int | None
    overthrow_rival: str | None
    style: dict[str, float]
    history: list[Moment]

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def to_csv(self) -> str:
        """The rows."""
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(Row.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return lines.getvalue()

    def table(self) -> str:
        """The rows and the head-to-head scores, aligned for a terminal."""
        ratings = [["model", "rank", "rating", "95 % interval", "Elo", "votes", "wins", "ties", "losses", "next model"]]
        for row in self.rows:
            interval = f"{row.lower:.0f} to {row.upper:.0f}"
            counts = [f"{count:,}" for count in (row.battles, row.wins, row.ties, row.losses)]
            figures = [str(row.rank), f"{row.rating:.0f}", interval, f"{row.elo:.0f}"]
            ratings.append([row.name, *figures, *counts, describe_next(row)])
        scores = [["score against (votes)", *(row.name for row in self.rows)]]
        for row, rates, counts in zip(self.rows, self.win_rates, self.battles, strict=True):
            cells = (
                "" if rate is None else f"{rate:.0%} ({count:,})" for rate, count in zip(rates, counts, strict=True)
            )
            scores.append([row.name, *cells])
        return f"{as_text(ratings)}\n{as_text(scores)}"

    def remarks(self) -> list[str]:
        """Facts that the table does not show, as sentences."""
        first = self.rows[0].name
        assumed = "are computed by voter" if self.by_voter else "take all votes as independent"
        found = [f"votes: {self.votes:,}, voters: {self.voters:,}; the 95 % intervals {assumed}"]
        if self.leaked:
            found.append(f"battles left out because an answer says a contestant's name: {self.leaked:,}")
        if self.overthrow_votes is not None:
            share = self.overthrow_votes / self.votes
            found.append(
                f"without {self.overthrow_votes:,} of the votes ({share:.1%}), {self.overthrow_rival} would be above "
                f"{first}"
            )
        if self.style:
            effects = ", ".join(f"{name} {points:+.0f}" for name, points in self.style.items())
            found.append(f"ratings are controlled for style; points per standard deviation: {effects}")
        return found


def describe_next(row: Row) -> str:
    """Whether a model can be told from the next one, in a few words."""
    if row.tells_from_next is None:
        return ""
    if row.tells_from_next:
        return "clearly below"
    more = f"{row.votes_to_tell:,}" if row.votes_to_tell is not None else f"over {MOST_VOTES:,}"
    return f"cannot tell yet: +{more} votes"


def make_leaderboard(results: Results, style: bool = False) -> Leaderboard:
    """Rate the models of a store.

    Args:
        style: control the ratings for length and Markdown.

    Raises:
        UserError: there are no votes.
    """
    if not results.verdicts:
        others = ", ".join(f"{count:,} of the kind '{kind}'" for kind, count in results.kinds.items()) or "none"
        raise UserError(f"'leaderboard': no votes to rate; the store has {others}, see --kind and the filters")
    votes = results.votes(style)
    ratings = bradley_terry(votes)
    order = [int(place) for place in np.argsort(-ratings.ratings, kind="stable")]
    counts, scores = votes.head_to_head()
    overthrow = votes_to_overthrow(votes, ratings)
    return Leaderboard(
        _rows(results, votes, ratings, order),
        [[int(counts[row, column]) for column in order] for row in order],
        [
            [float(scores[row, column] / counts[row, column]) if counts[row, column] else None for column in order]
            for row in order
        ],
        len(votes),
        results.leaked,
        len(np.unique(votes.voter)),
        ratings.voters is not None,
        overthrow.votes if overthrow else None,
        results.names[overthrow.rival] if overthrow else None,
        dict(zip(COLUMNS, (POINTS * ratings.style).tolist())) if style else {},
        _history(results, votes, order),
    )


def _rows(results: Results, votes: Votes, ratings: Ratings, order: list[int]) -> list[Row]:
    chess = elo(votes)
    outcomes = Counter()
    for first, second, score in zip(votes.first, votes.second, votes.score, strict=True):
        outcomes[int(first), float(score)] += 1
        outcomes[int(second), 1 - float(score)] += 1
    rows = []
    for place, following in zip(order, [*order[1:], None], strict=True):
        wins, ties, losses = (outcomes[place, score] for score in (1.0, 0.5, 0.0))
        rating, half = float(ratings.ratings[place]), float(ratings.half_widths[place])
        tells = None if following is None else can_tell(ratings, place, following)
        rows.append(
            Row(
                int(ratings.ranks[place]),
                results.names[place],
                results.fingerprints[place],
                rating,
                rating - half,
                rating + half,
                float(chess[place]),
                wins + ties + losses,
                wins,
                ties,
                losses,
                tells,
                None if following is None else votes_to_tell(ratings, place, following),
            )
        )
    return rows


def _history(results: Results, votes: Votes, order: list[int]) -> list[Moment]:
    """Ratings by the first votes, at numbers of votes that are evenly spaced."""
    count = min(CHECKPOINTS, len(votes))
    marks = np.linspace(0, len(votes), count + 1).round().astype(int)[1:]
    moments = []
    for mark in marks:
        early = votes.where(np.arange(mark))
        met = set(early.first.tolist()) | set(early.second.tolist())
        ratings = bradley_terry(early).ratings
        values = [float(ratings[place]) if place in met else None for place in order]
        moments.append(Moment(int(mark), results.verdicts[mark - 1].time, values))
    return moments
