"""What is kept of every item, and what reads it back."""

import pytest

from training.common.errors import UserError
from training.eval.measures.items import Outcome, identify, read_outcomes, write_outcomes


def test_what_was_written_comes_back(tmp_path):
    outcomes = [Outcome("arc", "a", {"acc": 1.0}), Outcome("text: books", "b", {"bits per byte": 2.5}, 300.0)]
    write_outcomes(tmp_path, "a model/with: signs", outcomes)
    write_outcomes(tmp_path, "other", [])
    read = read_outcomes(tmp_path, "a model/with: signs")
    assert read == {"arc": {"a": outcomes[0]}, "text: books": {"b": outcomes[1]}}
    assert read_outcomes(tmp_path, "other") == {}


def test_equal_items_stay_apart(tmp_path):
    write_outcomes(tmp_path, "m", [Outcome("arc", "a", {"acc": float(n)}) for n in range(3)] + [Outcome("b", "a", {})])
    read = read_outcomes(tmp_path, "m")
    assert [outcome.scores["acc"] for outcome in read["arc"].values()] == [0.0, 1.0, 2.0]
    assert list(read["b"]) == ["a"]


def test_an_item_is_named_by_what_it_says():
    assert identify({"a": 1, "b": [2]}) == identify({"b": [2], "a": 1}) != identify({"a": 1, "b": [3]})


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no items/m.jsonl; run `scratch evaluate` again"):
        read_outcomes(tmp_path, "m")
    write_outcomes(tmp_path, "m", [])
    for damage in ("{", '{"measure": "a"}', "[1]"):
        (tmp_path / "items" / "m.jsonl").write_text(damage)
        with pytest.raises(UserError, match="m.jsonl is damaged"):
            read_outcomes(tmp_path, "m")
