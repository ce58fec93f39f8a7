"""Battles without a page: as many as asked for, with votes, none twice after a kill, and failures counted."""

import asyncio
import json
import sqlite3

import pytest
from messages import refused
from puppets import Puppet

from training.arena import contestants as contestants_module
from training.arena import tournament as tournament_module
from training.arena.store import Store
from training.arena.tournament import Tournament
from training.arena.voters import open_voter
from training.commands import arena

PROMPTS = [[{"role": "user", "content": f"Write function {number}."}] for number in range(5)]
GOOD, BAD = Puppet("zebra-model", "x = ", "1"), Puppet("yak-model", "1 +")


def tournament(store, *others, seed=None, voter=("parses",), prompts=PROMPTS, report=print):
    opened = open_voter(list(voter), [], None) if voter else None
    made = Tournament(store, [GOOD, BAD, *others], prompts, {"temperature": 1.0}, seed, opened, report)
    made.open()
    return made


def play(store, battles, *others, **options):
    return asyncio.run(tournament(store, *others, **options).play(battles))


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "arena.sqlite", writes=True) as opened:
        yield opened


def test_battles_over_the_prompts(store):
    tally = play(store, 40)
    battles, votes = list(store.battles()), store.votes()
    assert tally.played == tally.voted == len(battles) == len(votes) == 40
    assert {each.conversation_a[0]["content"] for each in battles} == {each[0]["content"] for each in PROMPTS}
    assert len({(each.seed_a, each.seed_b) for each in battles}) == 40
    sides = {each.id: each.model_a for each in battles}
    assert 5 < sum(side == GOOD.name for side in sides.values()) < 35  # at random
    assert all((vote.winner == "model_a") == (sides[vote.battle] == GOOD.name) for vote in votes)
    assert {(vote.kind, vote.rater) for vote in votes} == {("rule", "parses")}
    assert play(store, 40).played == 0 and play(store, 50).played == 10
    assert play(store, 3, seed=1).played == 3  # other battles


def test_many_at_once(store):
    slow = Puppet("slow-model", "x = 2", delay=0.05)
    running = []

    async def answer(messages, settings):
        running.append(len(running) - running.count(None) * 2)
        await asyncio.sleep(0.05)
        running.append(None)
        yield "x = 2"

    slow.answer = answer
    play(store, 48, slow, voter=None)
    assert max(each for each in running if each is not None) >= tournament_module.AT_ONCE // 3


def test_the_same_command_continues_after_a_kill(tmp_path, monkeypatch):
    """Killed between two writes to the store, as SIGKILL does, since a battle and its votes are one transaction."""
    file = tmp_path / "arena.sqlite"

    class Killed(BaseException):
        pass

    with Store.open(file, writes=True) as store:
        add, calls = store.add, []

        def add_some(*rows):
            calls.append(rows)
            if len(calls) > 7:
                raise Killed
            return add(*rows)

        monkeypatch.setattr(store, "add", add_some)
        with pytest.raises(Killed):
            play(store, 30)
    with Store.open(file, writes=True) as store:
        assert len(store.votes()) == 7
        assert play(store, 30).played == 23
        assert len(store.votes()) == len({vote.battle for vote in store.votes()}) == 30


FAILURES = {
    "raises": Puppet("bad-model", "fi", fails=RuntimeError("out of memory")),
    "says nothing": Puppet("bad-model", " "),
    "has no end": Puppet("bad-model", *["x" * 1000] * 50),
    "hangs": Puppet("bad-model", "x", delay=30),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_contestant_that_fails_costs_its_battles(store, monkeypatch, failure):
    monkeypatch.setattr(contestants_module, "MOST_SECONDS", 0.3)
    reports = []
    tally = play(store, 20, FAILURES[failure], report=reports.append)
    assert tally.played + tally.failed["bad-model"] == 20 and 0 < tally.played < 20
    assert len(reports) == 1 and reports[0].startswith("bad-model: ")  # said once
    assert "bad-model" not in {each.model_a for each in store.battles()}


def test_no_battle_at_all(store):
    with refused(None, "zebra-model failed in all"):
        silent = Puppet("zebra-model")
        asyncio.run(Tournament(store, [silent, BAD], PROMPTS, {}, 0, None, print).play(4))


def test_an_answer_that_says_a_name_is_marked(store):
    play(store, 12, Puppet("vain-model", "# vain-model\nx = 1"))
    for each in store.battles():
        assert each.leaked == ("vain-model" in (each.model_a, each.model_b))


def test_the_command(tmp_path, monkeypatch, capsys):
    """On a file of conversations, with the rules' columns; only the contestants are puppets."""
    monkeypatch.chdir(tmp_path)
    record = {"messages": [*PROMPTS[0], {"role": "assistant", "content": "def f(): pass"}], "name": "x", "group": "g"}
    (tmp_path / "validation.jsonl").write_text(json.dumps(record) + "\n")

    class Opened:
        __enter__ = staticmethod(lambda: [GOOD, BAD])
        __exit__ = staticmethod(lambda *_: None)

    monkeypatch.setattr(contestants_module, "opened", lambda names: Opened())
    words = ["a", "b", "--prompts", "validation.jsonl", "--battles", "6", "--voter", "parses", "defines"]
    arena.main(words)
    printed = capsys.readouterr().out
    assert "6 new battles in arena.sqlite" in printed and "parses+defines voted on 6 battles (rule)" in printed
    assert "next: scratch arena --leaderboard arena.sqlite --kind rule" in printed
    with sqlite3.connect("arena.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM votes").fetchone() == (6,)
    arena.main([*words, "--temperature", "0.5"])
    assert "6 new battles" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, key, fact",
    [
        (["a", "b", "--battles", "3"], "battles", "--prompts"),
        (["a", "b", "--voter", "parses"], "voter", "--prompts"),
        (["a", "--prompts", "validation.jsonl"], "given", "two contestants"),
        (["a", "b", "--prompts", "nothing.jsonl"], "prompts", "no such file"),
    ],
)
def test_mistakes(arguments, key, fact):
    with refused(key, fact):
        arena.main(arguments)
