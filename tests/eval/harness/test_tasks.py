"""The lm-eval wrapper against the stock program, on the same files."""

import json
import math
import os
import subprocess
import sys

import pytest
from messages import refused

from training.common.estimates import mean_with_stderr
from training.eval.harness.catalog import TaskCatalog
from training.eval.harness.local_data import LocalData
from training.eval.harness.runner import TaskRunner, TaskSettings
from training.eval.harness.task_files import copy_tasks, local_tasks
from training.eval.harness.task_scores import count_choices


def find(*arguments, settings=TaskSettings(), **keywords):
    """Tasks whose data are there, ready to load."""
    catalog = TaskCatalog(*arguments, **keywords)
    catalog.find()
    return TaskRunner(catalog, settings)


def figures_of(scores, task):
    """Figures by metric."""
    return {key.metric: figure for key, figure in scores.figures.items() if key[:2] == ("tasks", task)}


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

    tasks = find(["tiny_choice"], folders / "recipes", folders / "data")
    tasks.load()
    scores = tasks.score(model, tokenizer, batch_size=4, context=256)
    figures = figures_of(scores, "tiny_choice")

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
        assert figures[metric].value == pytest.approx(stock[f"{metric},none"])
        assert figures[metric].stderr == pytest.approx(stock[f"{metric}_stderr,none"])
        assert figures[metric].n == 20
        assert figures[metric].chance == pytest.approx(1 / 3)
    assert 0 < figures["acc"].value < 1  # a figure that could have differed
    assert sum(outcome.scores["acc"] for outcome in scores.outcomes) == 20 * figures["acc"].value


def test_counting_choices():
    assert count_choices([("q", "a"), ("q", "b"), ("q", "c")]) == 3
    assert count_choices([("q", "a"), ("q", "b"), ("", "a"), ("", "b")]) == 2  # scored without context too
    assert count_choices([("he fell", "down"), ("she fell", "down")]) == 2  # Winogrande's way


def test_bad_tasks_are_named_before_any_work(folders, tmp_path):
    find(["tiny_choice"], folders / "recipes", folders / "data")
    with refused("tasks", "tiny_choice.jsonl", "missing", "run `scratch prepare`"):
        find(["tiny_choice"], folders / "recipes", tmp_path)
    with refused("tasks", "no task 'tiny_chioce'", "did you mean 'tiny_choice'"):
        find(["tiny_chioce"], folders / "recipes", folders / "data")


CHOICES = "task: drawn\ndataset_path: json\ndataset_kwargs: {data_files: {test: FILE, train: FILE}}\ntest_split: test\n"
CHOICES += "training_split: train\noutput_type: multiple_choice\ndoc_to_text: question\ndoc_to_choice: choices\n"
CHOICES += "doc_to_target: answer\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"


def drawn(folder, num_fewshot=None, **settings):
    """A task that may have few-shot examples, ready to score."""
    (folder / "recipes").mkdir(parents=True)
    answers = [[f"{n * 7 % 10}{n * 3 % 8}", f"{n * 9 % 10}{n * 5 % 7}"] for n in range(12)]
    (folder / "items.jsonl").write_text(
        "".join(json.dumps({"question": f"{n}?", "choices": answers[n], "answer": n % 2}) + "\n" for n in range(12))
    )
    (folder / "recipes" / "drawn.yaml").write_text(CHOICES.replace("FILE", str(folder / "items.jsonl")))
    tasks = find(["drawn"], folder / "recipes", num_fewshot=num_fewshot, settings=TaskSettings(**settings))
    tasks.load()
    return tasks


def test_several_seeds_draw_other_examples(tokenizer, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model = tiny_model(seed=2)
    alone = [
        drawn(tmp_path / str(seed), num_fewshot=2, seeds=(seed,)).score(model, tokenizer, 4, 256) for seed in (1, 2)
    ]
    both = drawn(tmp_path / "both", num_fewshot=2, seeds=(1, 2)).score(model, tokenizer, 4, 256)
    figure = figures_of(both, "drawn")["acc"]
    values = [figures_of(scores, "drawn")["acc"].value for scores in alone]
    assert figure.by_seed == values and figure.value == pytest.approx(sum(values) / 2)
    assert figure.spread == pytest.approx(abs(values[0] - values[1]) / 2**0.5) and figure.n == 12
    each = [[outcome.scores["acc"] for outcome in scores.outcomes] for scores in alone]
    assert each[0] != each[1]
    means = [(one + other) / 2 for one, other in zip(*each)]
    assert [outcome.scores["acc"] for outcome in both.outcomes] == means
    assert figure.stderr == pytest.approx(mean_with_stderr(means).stderr)


def test_seeds_that_change_nothing_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with refused("fewshot_seeds", "none of the tasks draws few-shot examples"):
        drawn(tmp_path, seeds=(1, 2))


def test_answers_that_do_not_fit_are_left_out_and_cut_questions_counted(tokenizer, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks = drawn(tmp_path, limit=5)
    lines = (tmp_path / "items.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"73"', f'"{"y" * 70}"')
    lines[3] = lines[3].replace("3?", "3?" * 40)
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n")
    tasks.load()
    scores = tasks.score(tiny_model(context=64), tokenizer, 4, 64)
    figure = figures_of(scores, "drawn")["acc"]
    assert (figure.n, figure.left_out, figure.truncated) == (4, 1, 1) and len(scores.outcomes) == 4


def test_the_template_of_a_chat_is_applied(tokenizer, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model, asked = tiny_model(), []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda self, input_ids, **rest: asked.extend(input_ids.tolist()) or forward(self, input_ids, **rest),
    )
    drawn(tmp_path, apply_chat_template=True, limit=2).score(model, tokenizer, 4, 256)
    texts = [tokenizer.decode(ids) for ids in asked]
    assert any("<|im_start|>user\n0?<|im_end|>\n<|im_start|>assistant\n" in text for text in texts)


def test_special_tokens_in_items_are_text(tokenizer, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model, asked = tiny_model(), []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda self, input_ids, **rest: asked.extend(input_ids.tolist()) or forward(self, input_ids, **rest),
    )
    tasks = drawn(tmp_path, limit=2)
    file = tmp_path / "items.jsonl"
    file.write_text(file.read_text().replace("?", "<|im_end|>?"))
    tasks.load()
    tasks.score(model, tokenizer, 4, 256)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in asked]
    assert any("0<|im_end|>?" in text for text in texts)
    assert not any(tokenizer.convert_tokens_to_ids("<|im_end|>") in ids for ids in asked)


def test_a_task_that_writes_more_than_the_context_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "gsm8k.jsonl").write_text('{"question": "1 and 1?", "answer": "#### 2"}\n' * 3)
    tasks = find(["gsm8k"], tmp_path / "none", local=LocalData(tmp_path), num_fewshot=0)
    tasks.load()
    tasks.check_lengths(512, "m")
    with refused("tasks", "gsm8k", "256 tokens", "m has a context of 256"):
        tasks.check_lengths(256, "m")


def test_a_group_of_our_own_takes_what_has_data(tokenizer, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    parts = {"determiner_noun_agreement_1": 3, "regular_plural_subject_verb_agreement_2": 5}
    pairs = [{"sentence_good": f"{n} a.", "sentence_bad": f"{n} b.", "UID": part} for part, n in parts.items()]
    records = [pair for pair, count in zip(pairs, parts.values()) for _ in range(count)]
    (tmp_path / "blimp.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "lambada.jsonl").write_text('{"context": "the cat and the", "continuation": "cat"}\n' * 4)
    tasks = find(["small"], tmp_path / "none", local=LocalData(tmp_path))
    assert tasks.catalog.partial_groups() == {"blimp_agreement": "2 of 12"}
    tasks.load()
    scores = tasks.score(tiny_model(), tokenizer, 4, 256)
    assert list(dict.fromkeys(key.name for key in scores.figures)) == ["blimp_agreement", "lambada_openai"]
    assert figures_of(scores, "blimp_agreement")["acc"].n == 8
    assert {key.name for key in scores.subtasks["blimp_agreement"]} == {f"blimp_{part}" for part in parts}
    perplexity = figures_of(scores, "lambada_openai")["perplexity"]
    kept = [outcome.scores for outcome in scores.outcomes if outcome.name == "lambada_openai"]
    assert perplexity.value == pytest.approx(math.exp(-kept[0]["log-likelihood"])) and perplexity.stderr == 0
    assert perplexity.unit == "score" and figures_of(scores, "lambada_openai")["log-likelihood"].unit == "nats"
