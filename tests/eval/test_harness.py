"""The lm-eval wrapper against the stock program, on the same files."""

import json
import os
import subprocess
import sys

import pytest

from training.errors import UserError
from training.eval.harness import Tasks, _count_choices, copy_tasks, local_tasks

TASK = """\
# A comment worth keeping.
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: runs/other/data/tasks/tiny_choice.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list:
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A task file and its data: three choices with answers of unlike length."""
    root = tmp_path_factory.mktemp("harness")
    (root / "recipes").mkdir()
    (root / "recipes" / "tiny_choice.yaml").write_text(TASK)
    (root / "data" / "tasks").mkdir(parents=True)
    words = ["one", "fourteen", "six", "a hundred", "two", "eleven", "ten"]
    with (root / "data" / "tasks" / "tiny_choice.jsonl").open("w") as file:
        for number in range(20):
            choices = [words[(number + shift) % 7] for shift in (0, 2, 5)]
            file.write(json.dumps({"question": f"number {number}: ", "choices": choices, "answer": number % 3}) + "\n")
    copy_tasks([root / "recipes" / "tiny_choice.yaml"], root / "data", root / "tasks")
    return root


def test_copied_tasks_have_absolute_paths_and_keep_their_comments(folders):
    text = (folders / "tasks" / "tiny_choice.yaml").read_text()
    assert str(folders / "data" / "tasks" / "tiny_choice.jsonl") in text
    assert text.startswith("# A comment worth keeping.")
    assert list(local_tasks(folders / "tasks")) == ["tiny_choice"]


def test_equals_the_stock_program(folders, tokenizer, tiny_model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folders / "cache"))
    model = tiny_model(seed=3)
    model.save_pretrained(folders / "model")
    tokenizer.save_pretrained(folders / "model")

    tasks = Tasks(["tiny_choice"], folders / "recipes", folders / "data")
    tasks.open(folders / "tasks")
    scores = tasks.score(model, tokenizer, batch_size=4, context=256)
    figures = scores.figures["tiny_choice"]

    program = os.path.join(os.path.dirname(sys.executable), "lm_eval")
    command = [program, "--model", "hf", "--model_args", f"pretrained={folders / 'model'},trust_remote_code=True"]
    command += ["--include_path", str(folders / "tasks"), "--tasks", "tiny_choice", "--device", "cpu"]
    command += ["--output_path", str(folders / "out")]
    finished = subprocess.run(command, cwd=folders, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    (written,) = (folders / "out").rglob("results_*.json")
    stock = json.loads(written.read_text())["results"]["tiny_choice"]

    assert list(figures) == ["acc_norm", "acc"]  # the task's first metric first
    for metric in figures:
        assert figures[metric]["value"] == pytest.approx(stock[f"{metric},none"])
        assert figures[metric]["stderr"] == pytest.approx(stock[f"{metric}_stderr,none"])
        assert figures[metric]["n"] == 20
        assert figures[metric]["chance"] == pytest.approx(1 / 3)
    assert 0 < figures["acc"]["value"] < 1  # a figure that could have differed
    assert sum(outcome.scores["acc"] for outcome in scores.outcomes) == 20 * figures["acc"]["value"]


def test_counting_choices():
    assert _count_choices([("q", "a"), ("q", "b"), ("q", "c")]) == 3
    assert _count_choices([("q", "a"), ("q", "b"), ("", "a"), ("", "b")]) == 2  # scored without context too
    assert _count_choices([("he fell", "down"), ("she fell", "down")]) == 2  # Winogrande's way


def test_bad_tasks_are_named_before_any_work(folders, tmp_path):
    Tasks(["tiny_choice"], folders / "recipes", folders / "data")
    with pytest.raises(UserError, match="tiny_choice.jsonl are missing; run `scratch prepare`"):
        Tasks(["tiny_choice"], folders / "recipes", tmp_path)
    with pytest.raises(UserError, match="no task 'tiny_chioce'.*did you mean 'tiny_choice'"):
        Tasks(["tiny_chioce"], folders / "recipes", folders / "data")
