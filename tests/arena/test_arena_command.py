"""`scratch arena`: votes in, leaderboard and preferences out, and mistakes in one line."""

import json

import pytest
from arenas import battle, make_store
from messages import refused

from training.commands.arena import main


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = [(battle("old", "new"), "model_b") for _ in range(6)] + [(battle("new", "other"), "tie")]
    make_store(tmp_path / "votes.sqlite", *outcomes).close()
    return tmp_path


def test_the_leaderboard(place, capsys):
    main(["--leaderboard", "votes.sqlite"])
    printed = capsys.readouterr().out
    assert "cannot tell yet" in printed and "votes: 7, voters: 1" in printed and "shown first won 0 %" in printed
    assert json.loads((place / "leaderboard.json").read_text())["rows"][0]["name"] == "new"
    assert (place / "leaderboard.csv").read_text().startswith("rank,name,")
    assert (place / "leaderboard.png").read_bytes().startswith(b"\x89PNG")


def test_votes_out_and_in_again(place, capsys):
    main(["votes.sqlite", "--export", "votes.jsonl", "--export-preferences", "pairs.jsonl"])
    pairs = [json.loads(line) for line in (place / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 6 and list(pairs[0]) == ["prompt", "chosen", "rejected"]
    assert "wrote 6 preferences to pairs.jsonl; left out: 1 tie" in capsys.readouterr().out
    main(["all.sqlite", "--import", "votes.jsonl", "votes.sqlite", "--leaderboard", "--output_dir", "."])
    printed = capsys.readouterr().out
    assert "votes.jsonl: 7 votes, of which 7 are new" in printed
    assert "votes.sqlite: 7 votes, of which 0 are new, on 0 new battles" in printed


@pytest.mark.parametrize(
    "arguments, key, fact",
    [
        (["votes.sqlite"], "given", "scratch chat --web"),
        (["votes.sqlite", "votes.sqlite", "--leaderboard"], "given", "one store"),
        (["nothing.sqlite", "--leaderboard"], None, "no such store"),
        (["votes.sqlite", "--export", "votes.txt"], "export", ".parquet"),
        (["votes.sqlite", "--export", "nowhere/votes.json"], "export", "does not exist"),
        (["votes.sqlite", "--export_preferences", "nowhere/pairs.jsonl"], "export_preferences", "does not exist"),
        (["votes.sqlite", "--export_preferences", "pairs.jsonl", "--kind", "rule"], "export_preferences", "--kind"),
        (["votes.sqlite", "--leaderboard", "--kind", "rule"], "leaderboard", "7 of the kind 'human'"),
        (["votes.sqlite", "--leaderboard", "--output_dir", "nowhere"], "output_dir", "nowhere"),
        (["votes.sqlite", "--import", "nothing.jsonl"], "import", "no such file"),
        (["votes.sqlite", "--leaderboard", "--min_words", "-1"], "min_words", "at least 0"),
        (["votes.sqlite", "--leaderbord", "true"], "leaderbord", "did you mean 'leaderboard'"),
    ],
)
def test_mistakes(place, arguments, key, fact):
    with refused(key, fact):
        main(arguments)
    assert not (place / "leaderboard.json").exists()


def test_an_import_that_fails_leaves_no_store(place):
    (place / "bad.jsonl").write_text('{"model_a": 1}\n')
    before = sorted(path.name for path in place.iterdir())
    with refused("import", "bad.jsonl:1"):
        main(["new.sqlite", "--import", "bad.jsonl"])
    assert sorted(path.name for path in place.iterdir()) == before
