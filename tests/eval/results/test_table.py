"""The table of results, and what is said below it."""

import math

from training.common.tables import as_markdown
from training.eval.measures.figures import Figure, MetricKey
from training.eval.results.page import page
from training.eval.results.results_file import ModelResults, Results
from training.eval.results.table import notes, results_table, show, subtask_tables


def figure(value, stderr=0.02, n=400, **others):
    return Figure(value, stderr, n, **others)


BASE = {
    ("data", "validation", "bits per byte"): figure(1.5, unit="bits per byte", details={"bytes": 9}),
    ("texts", "books", "bits per byte"): figure(2.0961, 0.0163, 50, unit="bits per byte"),
    ("chats", "sums", "ends"): figure(0.5, left_out=1),
    ("chats", "sums", "format"): figure(0.25, left_out=1),
    ("chats", "sums", "all"): figure(0.125, left_out=1),
    ("chats", "sums", "reward"): figure(1.5, 0.25, left_out=3, unit="score"),
    ("chats", "sums", "mine"): figure(None, None, 0, left_out=401, unit="score"),
    ("chats", "sums", "bits per byte"): figure(2.25, left_out=4, unit="bits per byte"),
    ("pairs", "polite", "accuracy"): figure(0.51, chance=0.5, left_out=5),
    ("pairs", "polite", "margin"): figure(-2.0, 1.0, left_out=5, unit="nats"),
    ("tasks", "arc_easy", "acc"): figure(0.28, chance=0.25),
    ("tasks", "arc_easy", "acc_norm"): figure(0.29, chance=0.25),
    ("tasks", "lambada_openai", "perplexity"): figure(12345.6, 56.7, unit="score"),
    ("tasks", "lambada_openai", "log-likelihood"): figure(-12.345, 0.678, unit="nats"),
    ("tasks", "lambada_openai", "acc"): figure(0.01),
}
SFT = {
    ("tasks", "arc_easy", "acc"): figure(0.4, chance=0.25, truncated=3, left_out=2),
    ("tasks", "arc_easy", "acc_norm"): figure(0.4, chance=0.25, truncated=3, left_out=2),
    ("tasks", "gsm8k", "exact_match (strict-match)"): figure(0.1, by_seed=[0.08, 0.12], spread=0.028),
}
MODELS = {
    name: ModelResults(
        "folder",
        10,
        {"tasks": 1.5},
        {MetricKey(*key): value for key, value in figures.items()},
        {"sums": [{"prompt": "p", "answer": "a", "ends": 1.0}]},
        {"group": {MetricKey("tasks", "arc_easy", "acc"): figure(0.28, chance=0.25)}},
    )
    for name, figures in {"base": BASE, "sft": SFT}.items()
}


def test_shares_in_percent_and_other_numbers_as_they_are():
    assert as_markdown(results_table(MODELS)).splitlines()[::2] == [
        "| model | bits per byte | books: bits per byte | sums: reward model score "
        "| sums: reference answers, bits per byte | polite: margin in nats | lambada_openai: log-likelihood "
        "| sums: answer ends | sums: format | sums: all of these | polite: accuracy (chance 50%) "
        "| arc_easy: accuracy (chance 25%) | lambada_openai: accuracy | gsm8k: exact match (strict-match) |",
        "| base | 1.500 | 2.096 ± 0.016 | 1.500 ± 0.250 | 2.250 ± 0.020 | -2.000 ± 1.000 | -12.35 ± 0.68 | 50.0 ± 2.0 "
        "| 25.0 ± 2.0 | 12.5 ± 2.0 | 51.0 ± 2.0 | 28.0 ± 2.0 | 1.0 ± 2.0 | - |",
    ]


def test_a_model_that_diverged():
    assert [show(figure(value, unit="nats")) for value in (math.nan, math.inf, -math.inf)] == ["nan", "inf", "-inf"]


def test_near_chance_is_said_plainly():
    assert notes(MODELS) == [
        "near chance (within two standard errors of guessing): base: polite: accuracy, arc_easy: accuracy",
        "base: sums: 1 questions left out, because the context has no room for an answer",
        "base: sums: reward model score: 2 answers not scored",
        "base: sums: mine: 400 answers not scored",
        "base: sums: 4 reference answers left out, because they exceed the context or have characters that the "
        "tokenizer does not know",
        "base: polite: 5 pairs left out, because they exceed the context or have characters that the tokenizer does "
        "not know",
        "sft: arc_easy: 2 items left out, because an answer exceeds the context",
        "sft: arc_easy: 3 of 400 items lose their beginning, because they exceed the context",
        "sft: gsm8k: mean of 2 draws of examples, with a standard deviation of 2.8 points between them",
    ]


def test_what_was_written_comes_back(tmp_path):
    results = Results({"seed": 0}, MODELS)
    results.write(tmp_path)
    assert Results.read(tmp_path) == results


def test_below_chance_is_said_plainly():
    low = ModelResults("folder", 1, figures={MetricKey("tasks", "quiz", "acc"): figure(0.2, chance=0.25)})
    assert notes({"base": low}) == ["below chance (by more than two standard errors of guessing): base: quiz: accuracy"]


def test_the_tasks_of_a_group_have_a_table_of_their_own():
    subjects = {
        name: {
            "mmlu": {
                MetricKey("tasks", f"mmlu_{n}", metric): figure(value + n / 1000, chance=0.25)
                for n in range(57)
                for metric in ("acc", "acc_norm")
            }
        }
        for name, value in {"base": 0.25, "sft": 0.3}.items()
    }
    models = {name: ModelResults("folder", 1, subtasks=found) for name, found in subjects.items()}
    models["other"] = ModelResults("folder", 1)
    rows = subtask_tables(models)["mmlu"]
    assert len(rows) == 58 and rows[0] == ["task", "items", "chance", "base", "sft", "other"]
    assert rows[57] == ["mmlu_56: accuracy", "400", "25%", "30.6 ± 2.0", "35.6 ± 2.0", "-"]
    text = page([["model"], ["base"]], {"mmlu": rows}, ["a note"], {"seed": 0, "versions": {}})
    assert "## mmlu\n\n| task |" in text and text.endswith("400 | 25% | 30.6 ± 2.0 | 35.6 ± 2.0 | - |\n")
