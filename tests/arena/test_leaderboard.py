"""The leaderboard: its figures, what it says it cannot tell, the votes that decide the first rank, and its plot."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from arenas import battle, conversation, make_store
from messages import refused

from benchmarks.arena import draw_strengths, draw_votes
from training.arena.certainty import can_tell, votes_to_overthrow, votes_to_tell
from training.arena.leaderboard import make_leaderboard
from training.arena.ratings import Votes, bradley_terry
from training.arena.results import Filter, Results, Verdict, read_results, unique_names
from training.arena.store import Contestant, Vote
from training.plots.leaderboard import draw_leaderboard


def head_to_head(wins: int, losses: int, ties: int = 0) -> Votes:
    score = np.array([1.0] * wins + [0.0] * losses + [0.5] * ties)
    zeros = np.zeros(len(score), dtype=np.int64)
    return Votes(2, zeros, zeros + 1, score, zeros)


@pytest.fixture
def store(tmp_path):
    outcomes = [(battle("old", "new"), "model_b") for _ in range(8)]
    outcomes += [(battle("new", "old"), winner) for winner in ("model_a", "model_b", "tie")]
    outcomes += [(battle("new", "other"), "both_bad")]
    outcomes += [(battle("old", "other", leaked=True), "model_a")]
    with make_store(tmp_path / "arena.sqlite", *outcomes) as store:
        yield store


def test_its_figures(store):
    board = make_leaderboard(read_results(store, Filter()))
    first, *_, last = board.rows
    assert (first.name, first.battles, first.wins, first.ties, first.losses) == ("new", 12, 9, 2, 1)
    assert (last.name, last.wins, last.ties, last.losses) == ("old", 1, 1, 9)
    assert first.rating > first.lower > last.rating > last.lower and first.rank == 1
    assert first.elo > 1000 > last.elo
    names = [row.name for row in board.rows]
    new, old, other = (names.index(name) for name in ("new", "old", "other"))
    assert board.battles[new][old] == board.battles[old][new] == 11
    assert board.win_rates[new][old] == 9.5 / 11
    assert board.win_rates[old][other] is None and board.win_rates[new][new] is None
    assert (board.votes, board.leaked, board.voters, board.by_voter) == (12, 1, 1, False)
    moment = board.history[0]
    assert moment.votes == 1 and moment.ratings[other] is None and moment.ratings[new] > 1000
    assert board.history[-1].ratings[new] == pytest.approx(first.rating)


def test_its_forms(store):
    board = make_leaderboard(read_results(store, Filter()))
    assert json.loads(json.dumps(board.to_json()))["rows"][0]["name"] == "new"
    rows = list(csv.DictReader(io.StringIO(board.to_csv())))
    assert [row["name"] for row in rows] == [row.name for row in board.rows]
    assert float(rows[0]["rating"]) == board.rows[0].rating
    table = board.table()
    assert "cannot tell yet" in table and "86% (11)" in table
    remarks = " ".join(board.remarks())
    assert "votes: 12, voters: 1" in remarks and "contestant's name: 1" in remarks
    assert "without 9 of the votes (75.0%), other would be above new" in remarks


def test_machine_votes_are_rated_apart(store):
    with refused("leaderboard", "13 of the kind 'human'", "--kind"):
        make_leaderboard(read_results(store, Filter("rule")))
    for each in list(store.battles("WHERE model_b = 'sha:new'"))[:4]:
        for swapped in (False, True):
            store.vote(Vote(each.id, "longest", "model_a", "rule", swapped))
    board = make_leaderboard(read_results(store, Filter("rule")))
    assert (board.rows[0].name, board.votes) == ("old", 4)
    assert make_leaderboard(read_results(store, Filter())).votes == 12


def test_control_for_style():
    generator, verdicts = np.random.default_rng(0), []
    for _ in range(600):  # `new` writes lists, and lists win
        sides = [("new", "old"), ("old", "new")][generator.integers(2)]
        lists = [generator.random() < (0.8 if side == "new" else 0.3) for side in sides]
        texts = ["- one\n- two\n- three" if has else "one two three" for has in lists]
        answers = {f"conversation_{side}": conversation("Why?", text) for side, text in zip("ab", texts, strict=True)}
        wins = generator.random() < 1 / (1 + math.exp(-2.0 * (lists[0] - lists[1])))
        verdicts.append(Verdict(battle(*sides, **answers), "anna", "model_a" if wins else "model_b", 0.0, None))
    results = Results(["old", "new"], ["sha:old", "sha:new"], verdicts, 0, {})
    plain, controlled = make_leaderboard(results), make_leaderboard(results, style=True)
    assert plain.rows[0].name == "new" and plain.rows[0].lower > 1020 and controlled.rows[0].lower < 1010
    assert controlled.style["list items"] > 50 and not plain.style
    assert "controlled for style" in " ".join(controlled.remarks())


def test_models_of_one_name_are_told_apart():
    models = [Contestant("mine", "a1b2c3d4e5"), Contestant("mine", "f6a7b8c9d0"), Contestant("other", "x")]
    assert unique_names(models) == ["mine (a1b2c3d4)", "mine (f6a7b8c9)", "other"]
    models = [Contestant("m", f"http://{end}") for end in ("host/v1#m", "host/v2#m")] + [Contestant("m", "a1b2c3d4e5")]
    assert unique_names(models) == ["m (http://host/v1#m)", "m (http://host/v2#m)", "m (a1b2c3d4)"]


def test_the_votes_that_would_tell():
    found = bradley_terry(head_to_head(55, 45))
    assert not can_tell(found, 0, 1)
    missing = votes_to_tell(found, 0, 1)
    assert 600 < missing + 100 < 950  # 783 votes for 55 % against a coin, with no prior and from nothing
    many = bradley_terry(head_to_head(550, 450))
    assert can_tell(many, 0, 1) and votes_to_tell(many, 0, 1) == 0
    assert votes_to_tell(bradley_terry(head_to_head(50, 50)), 0, 1) is None
    with_ties = votes_to_tell(bradley_terry(head_to_head(55, 45, 100)), 0, 1)
    assert with_ties > missing  # the difference is smaller


def test_as_many_votes_as_said_do_tell():
    """With the power promised, 80 %, if the true difference is the one seen."""
    found = bradley_terry(head_to_head(33, 27))
    missing, generator = votes_to_tell(found, 0, 1), np.random.default_rng(0)
    won = generator.binomial(missing, 1 / (1 + math.exp(-found.difference(0, 1)[0])), 300)
    told = [can_tell(bradley_terry(head_to_head(33 + int(w), 27 + missing - int(w))), 0, 1) for w in won]
    assert 0.72 < np.mean(told) < 0.9


def test_the_votes_that_decide_the_first_rank():
    votes = head_to_head(30, 22, 5)
    found = votes_to_overthrow(votes, bradley_terry(votes))
    assert (found.votes, found.rival) == (9, 1)
    sure = head_to_head(40, 0)
    assert votes_to_overthrow(sure, bradley_terry(sure)) is None  # even without all of them they are equal


def test_the_first_rank_falls_without_these_votes_and_not_without_one_less():
    generator = np.random.default_rng(3)
    votes = draw_votes(draw_strengths(4, 80, generator), 15, 3, 0.0, generator)
    ratings = bradley_terry(votes)
    first = int(ratings.ratings.argmax())
    found = votes_to_overthrow(votes, ratings)
    wins = np.flatnonzero(
        ((votes.first == first) & (votes.score == 1)) | ((votes.second == first) & (votes.score == 0))
    )
    for removed in wins[: 1 * (found.votes > 1)]:  # no single vote does it, if it takes two
        kept = np.delete(np.arange(len(votes)), removed)
        assert bradley_terry(votes.where(kept)).ratings.argmax() == first
    assert 1 <= found.votes <= len(votes) / 4 and found.rival != first


def test_it_is_drawn(tmp_path, store):
    board = make_leaderboard(read_results(store, Filter()))
    file = tmp_path / "leaderboard.png"
    many = [f"a model with a long name, ${number}$" for number in range(14)]
    draw = [
        (
            [row.name for row in board.rows],
            [(row.rating, row.lower, row.upper) for row in board.rows],
            board.win_rates,
            board.battles,
            [(moment.votes, moment.ratings) for moment in board.history],
        ),
        (many, [(1000, 900, 1100)] * 14, [[None] * 14] * 14, [[0] * 14] * 14, []),
    ]
    for figures in draw:
        draw_leaderboard(file, *figures, "11 votes")
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 10_000


def test_a_filter_by_topic(store):
    results = read_results(store, Filter(topic="code"))
    assert not results.verdicts and replace(Filter(), topic="other").takes(next(store.battles()))
