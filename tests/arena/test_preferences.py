"""Preferences from votes: what is left out, and that both trainers take the rest as it is."""

from dataclasses import replace

from arenas import battle, conversation, make_store

from training.arena.preferences import collect_preferences
from training.arena.results import Filter
from training.arena.store import Vote

TURNS = {
    "conversation_a": conversation("Why?", "So.", "And?", "Good."),
    "conversation_b": conversation("Why?", "No.", "And?", "Bad."),
}
LATER = {
    "conversation_a": conversation("Why?", "So.", "And?", "Good."),
    "conversation_b": conversation("Why?", "So.", "And?", "Bad."),
}
SAME = {side: conversation("Why?", "So.") for side in TURNS}
OTHER = TURNS | {"conversation_b": conversation("What?", "No.")}
EMPTY = TURNS | {"conversation_b": conversation("Why?", " ")}


def test_what_becomes_a_preference(tmp_path):
    outcomes = [
        (battle(), "model_a"),
        (battle(), "model_b"),
        (battle(**TURNS), "model_b"),
        (battle(**LATER), "model_a"),
        (battle(), "tie"),
        (battle(), "both_bad"),
        (battle(leaked=True), "model_a"),
        (battle(**SAME), "model_a"),
        (battle(**OTHER), "model_a"),
        (battle(**EMPTY), "model_a"),
    ]
    with make_store(tmp_path / "arena.sqlite", *outcomes) as store:
        found = collect_preferences(store, Filter())
    left_out = {"tie": 1, "both bad": 1, "leaked": 1, "equal answers": 1, "different prompts": 1, "without answers": 1}
    assert found.left_out == left_out
    a, b = ([{"role": "assistant", "content": f"I am answer {side}."}] for side in "ab")
    question = conversation("Why?")
    assert found.records == [
        {"prompt": question, "chosen": a, "rejected": b},
        {"prompt": question, "chosen": b, "rejected": a},
        {"prompt": question, "chosen": TURNS["conversation_b"][1:], "rejected": TURNS["conversation_a"][1:]},
        {
            "prompt": LATER["conversation_a"][:3],
            "chosen": LATER["conversation_a"][3:],
            "rejected": LATER["conversation_b"][3:],
        },
    ]


def test_machine_votes_are_apart_and_must_not_change_with_the_order(tmp_path):
    both = [battle(), battle()]
    with make_store(tmp_path / "arena.sqlite", *((each, "model_a") for each in both)) as store:
        for each, winners in zip(both, (("model_b", "model_b"), ("model_a", "model_b")), strict=True):
            for swapped, winner in enumerate(winners):
                store.vote(Vote(each.id, "longest", winner, "rule", bool(swapped)))
        assert len(collect_preferences(store, Filter()).records) == 2
        found = collect_preferences(store, Filter("rule"))
    assert len(found.records) == 1 and found.left_out == {"changed with the order": 1}


def test_both_trainers_read_the_records(tmp_path):
    from datasets import load_dataset
    from trl import is_conversational, maybe_extract_prompt

    from training.arena.exchange import write_jsonl
    from training.tuning.dataset_formats import PREFERENCES, convert_dataset

    with make_store(tmp_path / "arena.sqlite", (battle(), "model_a"), (battle(**TURNS), "model_b")) as store:
        records = collect_preferences(store, Filter()).records
    write_jsonl(tmp_path / "pairs.jsonl", records)
    data = load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train", cache_dir=str(tmp_path))
    converted, line = convert_dataset(data, PREFERENCES, "recipe")
    assert "ignored" not in line and list(converted) == records
    for record in data:
        assert is_conversational(record) and maybe_extract_prompt(record) == record


def test_filters_by_prompt(tmp_path):
    prompts = {"code": "Write a Python function.", "math": "What is 3 + 4?", "other": "Tell me about your long day."}
    outcomes = [(replace(battle(prompt=prompt)), "model_a") for prompt in prompts.values()]
    with make_store(tmp_path / "arena.sqlite", *outcomes) as store:
        for topic, prompt in prompts.items():
            (record,) = collect_preferences(store, Filter(topic=topic)).records
            assert record["prompt"][0]["content"] == prompt
        assert len(collect_preferences(store, Filter(min_words=5)).records) == 2
        assert len(collect_preferences(store, Filter(max_words=5)).records) == 2
