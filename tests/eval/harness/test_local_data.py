"""Files of evaluation data: what is found, what becomes of its records, and what is said of what is not there."""

import json
from pathlib import Path

import pytest
from messages import refused

from training.eval.harness.data_sets import DATA_SETS
from training.eval.harness.local_data import LocalData

ARC = {
    "dataset_path": "allenai/ai2_arc",
    "dataset_name": "ARC-Easy",
    "training_split": "train",
    "test_split": "test",
    "validation_split": "validation",
}
BLIMP = {"dataset_path": "nyu-mll/blimp", "dataset_name": "causative", "validation_split": "train"}
MOSAIC = {"query": "Question: Why?", "choices": ["a", "b", "c"], "gold": 2}


def write(file, *records):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records))


def find(folder, config=ARC, shots=0):
    return LocalData(folder).task("task", Path("task.yaml"), config, shots)


def convert(path, name, record):
    return DATA_SETS[path, name].to_hub(record)


@pytest.mark.parametrize("name", ["arc_easy.jsonl", "arc_easy_test.jsonl", "arc_easy-a.jsonl", "arc_easy/part1.jsonl"])
def test_names_of_files(tmp_path, name):
    write(tmp_path / "arc_easy_hard.jsonl", MOSAIC, MOSAIC)  # of another set
    write(tmp_path / name, MOSAIC)
    (record,) = find(tmp_path).splits["test"]
    assert record == {
        "question": "Why?",
        "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]},
        "answerKey": "C",
    }


def test_a_named_split_goes_before_parts_and_examples_have_their_own(tmp_path):
    write(tmp_path / "arc_easy.jsonl", MOSAIC, MOSAIC)
    write(tmp_path / "arc_easy_test.jsonl", MOSAIC)
    write(tmp_path / "arc_easy_train.jsonl", MOSAIC, MOSAIC, MOSAIC)
    assert {split: len(records) for split, records in find(tmp_path).splits.items()} == {"test": 1}
    found = find(tmp_path, shots=2)
    assert {split: len(records) for split, records in found.splits.items()} == {"test": 1, "train": 3}
    assert found.absent == ("validation_split",)


def test_records_in_the_hubs_columns_are_left_alone(tmp_path):
    record = {"id": "x", "question": "Why?", "choices": {"text": ["a"], "label": ["1"]}, "answerKey": "1"}
    write(tmp_path / "arc_easy.jsonl", record)
    assert find(tmp_path).splits["test"] == [record]


def test_one_file_of_many_parts(tmp_path):
    write(tmp_path / "blimp_a.jsonl", *({"sentence_good": "a", "sentence_bad": "b", "UID": uid} for uid in "xy"))
    assert find(tmp_path, BLIMP) is None
    assert len(find(tmp_path, BLIMP | {"dataset_name": "y"}).splits["train"]) == 1


def test_a_repeated_choice_of_arc_is_no_choice():
    padded = MOSAIC | {"choices": ["a", "b", "a", "c"], "gold": 3}
    assert convert("allenai/ai2_arc", "ARC-Easy", padded)["choices"]["text"] == ["a", "b", "c"]
    assert convert("allenai/ai2_arc", "ARC-Easy", padded)["answerKey"] == "C"


def test_a_schema_is_a_sentence_with_a_gap():
    record = {"context_options": ["Because the cat", "Because the dog"], "continuation": "slept.", "gold": 1}
    assert convert("allenai/winogrande", None, record) == {
        "sentence": "Because the _ slept.",
        "option1": "cat",
        "option2": "dog",
        "answer": "2",
    }
    gap = convert("lighteval/winograd_wsc", None, record | {"continuation": "."})
    assert gap["text"] == "Because the _." and gap["text"][gap["pronoun_loc"]] == gap["pronoun"]


@pytest.mark.parametrize(
    "records, facts",
    [
        (
            [MOSAIC, {"text": "x"}],
            [":2:", "columns text", "question, choices, answerKey or query, choices, gold", "type: question"],
        ),
        ([MOSAIC | {"gold": "2"}], [":1:", "columns query, choices, gold", "type: gold"]),
        ([MOSAIC | {"gold": 3}], [":1:", "'gold' is 3", "3 choices"]),
        ([MOSAIC, "{"], [":2:", "not valid JSON"]),
        (["[1]"], [":1:", "[1]"]),
    ],
)
def test_a_record_of_the_wrong_shape_is_named(records, facts, tmp_path):
    write(tmp_path / "arc_easy.jsonl", *records)
    with refused("data_dir", tmp_path / "arc_easy.jsonl", *facts):
        find(tmp_path)


def test_what_is_not_there_is_told_with_what_is(tmp_path):
    with refused("data_dir", "empty"):
        find(tmp_path)
    write(tmp_path / "piqa.jsonl", MOSAIC)
    copy = f"{tmp_path}/allenai/ai2_arc"
    with refused(
        "data_dir", f"{tmp_path} has no data for task", "arc_easy.jsonl or arc_easy.jsonl.gz", copy, "holds piqa.jsonl"
    ):
        find(tmp_path)
    with refused("data_dir", "copy of the Hub's dataset some/set", f"{tmp_path}/some/set"):
        find(tmp_path, {"dataset_path": "some/set", "test_split": "test"})
    write(tmp_path / "arc_easy.jsonl", MOSAIC)
    with refused("num_fewshot", "examples of task", "split 'train'", "arc_easy_train.jsonl"):
        find(tmp_path, shots=5)
    with refused("data_dir", "no such folder", tmp_path / "gone"):
        LocalData(tmp_path / "gone")
    write(tmp_path / "piqa.jsonl", MOSAIC)
    with refused("data_dir", "piqa.jsonl:1:", "3 choices instead of 2"):
        find(tmp_path, {"dataset_path": "baber/piqa", "validation_split": "validation"})
