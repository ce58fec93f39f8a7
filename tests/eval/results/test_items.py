"""What is kept of every item, and what reads it back."""

import pytest
from messages import refused

from training.eval.measures.figures import ItemOutcome, identify
from training.eval.results.items import read_outcomes, write_outcomes


def test_what_was_written_comes_back(tmp_path):
    outcomes = [
        ItemOutcome("tasks", "arc", "a", {"acc": 1.0}),
        ItemOutcome("texts", "books: old", "b", {"bits per byte": 2.5}, 300.0),
    ]
    write_outcomes(tmp_path, "a model/with: signs", outcomes)
    write_outcomes(tmp_path, "other", [])
    assert read_outcomes(tmp_path, "a model/with: signs") == outcomes
    assert read_outcomes(tmp_path, "other") == []


def test_equal_items_stay_apart(tmp_path):
    outcomes = [ItemOutcome("tasks", "arc", "a", {"acc": float(n)}) for n in range(3)]
    write_outcomes(tmp_path, "m", [*outcomes, ItemOutcome("tasks", "b", "a", {}), ItemOutcome("pairs", "arc", "a", {})])
    read = read_outcomes(tmp_path, "m")
    assert [outcome.scores["acc"] for outcome in read[:3]] == [0.0, 1.0, 2.0]
    assert len({outcome.item for outcome in read[:3]}) == 3
    assert [outcome.item for outcome in read[3:]] == ["a", "a"]


def test_an_item_is_named_by_what_it_says():
    assert identify({"a": 1, "b": [2]}) == identify({"b": [2], "a": 1}) != identify({"a": 1, "b": [3]})


HUGE = '{"kind": "chats", "name": "a", "item": "0", "scores": {"ends": 1e308}}'


@pytest.mark.parametrize("damage", ["{", '{"kind": "a"}', "[1]", HUGE])
def test_missing_and_damaged_files_are_named(damage, tmp_path):
    with refused("compare", "items/m.jsonl", "run `scratch evaluate` again"):
        read_outcomes(tmp_path, "m")
    write_outcomes(tmp_path, "m", [])
    (tmp_path / "items" / "m.jsonl").write_text(damage)
    with refused("compare", "m.jsonl is damaged"):
        read_outcomes(tmp_path, "m")
