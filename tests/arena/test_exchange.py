"""Export and import: LMArena's columns, stores that merge, nothing counted twice."""

import csv
import json
from dataclasses import replace

import pytest
from arenas import battle, conversation, make_store
from messages import refused

from training.arena.exchange import export_votes, import_votes, read_votes
from training.arena.store import Store, Vote


@pytest.fixture
def store(tmp_path):
    battles = [battle(seed_a=1, sampling={"top_k": 5}), battle(voter="berta", leaked=True)]
    with make_store(tmp_path / "arena.sqlite", *((each, "model_a") for each in battles)) as store:
        store.vote(Vote(battles[0].id, "longest", "model_b", "rule", swapped=True, time=2e9))
        yield store


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".sqlite"])
def test_a_round_trip_loses_nothing_and_doubles_nothing(store, tmp_path, ending):
    file = tmp_path / f"votes{ending}"
    if ending == ".sqlite":
        store.close()
        store.path.rename(file)
        store = Store.open(file)
    else:
        assert export_votes(store, file) == 3
    with Store.open(tmp_path / "copy.sqlite", writes=True) as copy:
        first, again = import_votes(copy, file), import_votes(copy, file)
        assert (first.found, first.battles, first.votes, again.battles, again.votes) == (3, 2, 3, 0, 0)
        assert copy.votes() == store.votes() and list(copy.battles()) == list(store.battles())
        named = {each.fingerprint: each.name for each in store.contestants()}
        assert {each.fingerprint: each.name for each in copy.contestants()}.items() <= named.items()


def test_several_stores_merge(store, tmp_path):
    second = make_store(tmp_path / "second.sqlite", (battle(voter="carla"), "tie"))
    second.close()
    with Store.open(tmp_path / "all.sqlite", writes=True) as merged:
        for path in (store.path, second.path, store.path):
            import_votes(merged, path)
        assert len(merged.votes()) == 4 and len(list(merged.battles())) == 3
        with refused("import", "the store itself"):
            import_votes(merged, merged.path)


RECORDS = {
    "chatbot_arena_conversations": {
        "question_id": "58210e39", "model_a": "x", "model_b": "y", "winner": "tie (bothbad)", "judge": "arena_user_1",
        "conversation_a": conversation("Why?", "So."), "conversation_b": conversation("Why?", "No."), "turn": 1,
        "anony": True, "language": "English", "tstamp": 1682351591.1,
    },
    "55k": {
        "id": 30192, "model_a": "x", "model_b": "y", "prompt": '["Why?", "And?"]', "response_a": '["So.", null]',
        "response_b": '["No.", "Nothing."]', "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0,
    },
    "140k": {
        "id": "d7", "model_a": "x", "model_b": "y", "winner": "both_bad", "evaluation_session_id": "s1",
        "evaluation_order": 1, "timestamp": "2025-06-30T12:00:00",
        "conversation_a": [{"role": "user", "content": [{"type": "text", "text": "Why?", "image": None}]}],
        "conversation_b": [{"role": "user", "content": [{"type": "text", "text": "Why?", "image": None}]}],
    },
    "no answers": {"model_a": "x", "model_b": "y", "winner": "model_b"},
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_columns_of_lmarena(tmp_path, name):
    file = tmp_path / "votes.jsonl"
    file.write_text(json.dumps(RECORDS[name]) + "\n")
    contestants, (battle,), (vote,) = read_votes(file)
    assert [each.name for each in contestants] == ["x", "y"] and vote.kind == "human"
    assert vote.winner == {"chatbot_arena_conversations": "both_bad", "140k": "both_bad"}.get(name, "model_b")
    assert battle.conversation_a[:1] == ([] if name == "no answers" else conversation("Why?"))
    if name == "55k":
        assert battle.conversation_b == conversation("Why?", "No.", "And?", "Nothing.")


def test_a_store_that_was_copied_during_a_battle(store, tmp_path):
    """Its battle without a vote, which went on in one of the two, is in the way of no import."""
    open_battle = battle()
    with Store.open(tmp_path / "copy.sqlite", writes=True) as copy:
        store.begin(open_battle)
        import_votes(copy, store.path)
        store.update(replace(open_battle, conversation_a=conversation("Why?", "So.", "And?", "So.")))
        store.vote(Vote(open_battle.id, "anna", "model_a"))
        added = import_votes(copy, store.path)
        assert (added.battles, added.votes) == (1, 1) and copy.votes() == store.votes()


@pytest.mark.parametrize(
    "text, time", [("1682351591.1", 1682351591.1), ("2025-06-30T12:00:00+00:00", 1751284800.0), ("", 0.0)]
)
def test_times_in_a_table_of_text(tmp_path, text, time):
    file = tmp_path / "votes.csv"
    file.write_text(f"model_a,model_b,winner,tstamp\nx,y,model_b,{text}\n")
    _, (battle,), (vote,) = read_votes(file)
    assert vote.time == battle.time == time


def test_a_table_of_text(tmp_path):
    file = tmp_path / "train.csv"
    columns = RECORDS["55k"]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns))
        writer.writeheader()
        writer.writerow(columns)
    _, (battle,), (vote,) = read_votes(file)
    assert vote.winner == "model_b" and battle.conversation_b[3]["content"] == "Nothing."


def test_equal_records_without_an_id_are_different_votes(tmp_path):
    file = tmp_path / "votes.json"
    file.write_text(json.dumps([RECORDS["no answers"]] * 3))
    with Store.open(tmp_path / "arena.sqlite", writes=True) as store:
        assert import_votes(store, file).votes == 3 and import_votes(store, file).votes == 0


@pytest.mark.parametrize(
    "change, facts",
    [
        ({"winner": "modle_a"}, ["votes.jsonl:2", "'winner'", "model_a"]),
        ({"model_a": None}, ["votes.jsonl:2", "'model_a'"]),
        ({"model_b": "x"}, ["votes.jsonl:2", "x battles itself"]),
        ({"conversation_a": [{"role": "user"}]}, ["votes.jsonl:2", "no content"]),
        ({"tstamp": "yesterday"}, ["votes.jsonl:2", "yesterday"]),
        ({"seed_a": float("inf")}, ["votes.jsonl:2", "'seed_a'", "whole number"]),
        ({"seed_b": 2**63}, ["votes.jsonl:2", "'seed_b'", "whole number"]),
        ({"seed_b": "x"}, ["votes.jsonl:2", "'seed_b'", "whole number"]),
        ({"kind": "dog"}, ["votes.jsonl:2", "dog"]),
        ({"question_id": "1", "judge": "other"}, ["another voter"]),
    ],
)
def test_a_bad_record_is_named_and_nothing_is_added(tmp_path, change, facts):
    good = RECORDS["chatbot_arena_conversations"] | {"question_id": "1"}
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (good, good | {"question_id": "2"} | change)))
    with Store.open(tmp_path / "arena.sqlite", writes=True) as store:
        with refused("import", *facts):
            import_votes(store, file)
        assert not store.votes() and not list(store.battles())


def test_files_that_cannot_be_imported(tmp_path):
    with Store.open(tmp_path / "arena.sqlite", writes=True) as store:
        with refused("import", "no such file"):
            import_votes(store, tmp_path / "nothing")
        file = tmp_path / "votes.parquet"
        file.write_bytes(b"PAR1 and nothing else")
        with refused(None, file, "Parquet"):
            import_votes(store, file)
        file = tmp_path / "votes.json"
        file.write_text("[]")
        with refused("import", file, "no votes"):
            import_votes(store, file)
