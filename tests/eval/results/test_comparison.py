"""Models compared on the items they share, from the folders that `scratch evaluate` leaves."""

import json

import pytest
from messages import refused

from training.eval.measures.figures import Figure, ItemOutcome, MetricKey
from training.eval.results.comparison import compare_folders, write_comparison
from training.eval.results.items import write_outcomes
from training.eval.results.results_file import ModelResults, Results

QUIZ, TEXT = MetricKey("tasks", "quiz", "acc"), MetricKey("texts", "a", "bits per byte")


def results(folder, models, parts=None):
    """A folder of results: name to accuracies by item of one task, and bits per byte of two pieces."""
    folder.mkdir()
    found = Results({})
    for name, (scores, bits) in models.items():
        outcomes = [ItemOutcome("tasks", "quiz", item, {"acc": float(score)}) for item, score in scores.items()]
        outcomes += [
            ItemOutcome("texts", "a", str(n), {"bits per byte": rate}, 100.0 * (n + 1)) for n, rate in enumerate(bits)
        ]
        for task, items in (parts or {}).items():
            outcomes += [ItemOutcome("tasks", task, item, {"acc": score}) for item, score in items.items()]
        write_outcomes(folder, name, outcomes)
        figures = {QUIZ: Figure(0.5, 0.1, 40, 0.25), TEXT: Figure(2.0, 0.1, 2, unit="bits per byte")}
        subtasks = {}
        if parts:
            figures[MetricKey("tasks", "group", "acc")] = Figure(0.5, 0.1, 3)
            subtasks["group"] = {MetricKey("tasks", task, "acc"): Figure(0.5, 0.1, 1) for task in parts}
        found.models[name] = ModelResults("folder", 1, figures=figures, subtasks=subtasks)
    found.write(folder)
    return folder


EASY = {str(n): n % 2 for n in range(40)}
BETTER = {str(n): n % 2 or n < 20 for n in range(40)}


def test_the_same_items_are_compared_one_by_one(tmp_path):
    folder = results(tmp_path / "a", {"base": (EASY, [2.0, 2.2]), "sft": (BETTER, [1.9, 2.05])})
    comparison = compare_folders([folder])
    assert comparison.models == ["base", "sft"] and not comparison.remarks
    quiz = comparison.measures[QUIZ]
    assert quiz.models["base"].value == 0.5 and quiz.models["sft"].chance == 0.25
    (pair,) = quiz.pairs
    assert (pair.difference.gained, pair.difference.lost, pair.verdict) == (10, 0, "better")
    assert pair.difference.value == 0.25 and pair.difference.p == pytest.approx(2 / 2**10)
    bits = comparison.measures[TEXT]
    assert bits.models["base"].value == pytest.approx((2.0 + 2 * 2.2) / 3)
    assert bits.pairs[0].difference.value == pytest.approx(-(0.1 + 2 * 0.15) / 3)
    assert bits.pairs[0].verdict == "better" and bits.pairs[0].shown  # fewer bits


def test_only_shared_items_count_and_that_is_said(tmp_path):
    few = {item: EASY[item] for item in list(EASY)[:10]}
    one = results(tmp_path / "a", {"base": (EASY, [2.0, 2.1])})
    two = results(tmp_path / "b", {"base": (few, [1.0])})
    comparison = compare_folders([one, two])
    assert comparison.models == [f"{one}: base", f"{two}: base"]
    quiz = comparison.measures[QUIZ]
    assert {figure.n for figure in quiz.models.values()} == {10}
    assert quiz.pairs[0].verdict == "no difference shown" and quiz.pairs[0].difference.p == 1.0
    assert not quiz.pairs[0].shown
    assert "quiz: accuracy: on the 10 items that all have, of 40" in comparison.remarks
    assert comparison.measures[TEXT].pairs[0].difference.p is None  # a single piece


def test_a_group_is_one_measure_of_all_its_items(tmp_path):
    parts = {"one": {"x": 1.0, "y": 0.0}, "two": {"x": 1.0}}
    folder = results(tmp_path / "a", {"base": (EASY, [1.0]), "sft": (EASY, [1.0])}, parts)
    measures = compare_folders([folder]).measures
    assert measures[MetricKey("tasks", "group", "acc")].models["base"].to_json() == pytest.approx(
        {"value": 2 / 3, "stderr": 1 / 3, "n": 3, "unit": "share"}
    )
    assert not any(key.name in ("one", "two") for key in measures)


def test_what_is_written(tmp_path):
    models = {"base": (EASY, [2.0, 2.2]), "sft": (BETTER, [1.9, 2.05]), "dpo": (EASY, [2.5, 2.1])}
    folder = results(tmp_path / "a", models)
    text = write_comparison(tmp_path, compare_folders([folder]))
    page = (tmp_path / "comparison.md").read_text()
    assert "| quiz: accuracy | 40 | 25 | 50.0 ± 8.0 | 75.0 ± 6.9 | 50.0 ± 8.0 |" in page
    assert "| quiz: accuracy | base → sft | +25.0 ± 6.9 | 10, 0 | 0.002 | better |" in page
    assert "| quiz: accuracy | sft → dpo | -25.0 ± 6.9 | 0, 10 | 0.002 | worse |" in page
    assert "| quiz: accuracy | base → dpo | +0.0 ± 0.0 | 0, 0 | 1.000 | no difference shown |" in page
    assert "base → sft" in text and "better" in text
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert len(content["measures"]["tasks"]["quiz"]["acc"]["pairs"]) == 3
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_said(tmp_path):
    one = results(tmp_path / "a", {"base": (EASY, [1.0])})
    with refused("compare", "holds one model, base", "second folder"):
        compare_folders([one])
    with refused("compare", "listed twice"):
        compare_folders([one, one])
    with refused("compare", "holds no results.json"):
        compare_folders([tmp_path])
    other = results(tmp_path / "b", {"sft": ({"z": 1}, [])})
    with refused("compare", "base and sft have no measure in common on the same items"):
        compare_folders([one, other])
    half, none = '{"conditions": {}, "models": {"\\ud83e": {}}}', '{"conditions": {}, "models": {}}'
    wrong = '{"models": {"sft": {"figures": {}, "wrong": 1}}}'
    for damage in ("{", "[]", half, none, '{"models": {"sft": {}}}', wrong):
        (other / "results.json").write_text(damage)
        with refused("compare", "results.json is damaged"):
            compare_folders([one, other])


def test_a_verdict_follows_the_p_that_is_printed(tmp_path):
    """Two standard errors and McNemar's exact test may disagree: 8 lost and 1 gained of 40, p 0.039; 6 and 0 of 7."""
    few = EASY | {str(n): 1 - EASY[str(n)] for n in range(0, 10, 2)}  # 5 gained, none lost
    lost = EASY | {str(n): 0 for n in range(1, 17, 2)} | {"2": 1}
    folder = results(tmp_path / "a", {"base": (EASY, [1.0, 1.0]), "few": (few, [1.0, 1.0]), "lost": (lost, [1.0, 1.0])})
    pairs = {(pair.before, pair.after): pair for pair in compare_folders([folder]).measures[QUIZ].pairs}
    gained = pairs["base", "few"]
    assert gained.difference.value > 2 * gained.difference.stderr and gained.difference.p == pytest.approx(2 / 2**5)
    assert gained.verdict == "no difference shown"
    assert pairs["base", "lost"].difference.p == pytest.approx(0.039, abs=1e-3)
    assert pairs["base", "lost"].verdict == "worse"


def test_a_task_alone_is_compared_with_the_same_task_in_a_group(tmp_path):
    scores = {str(n): float(n < 15) for n in range(20)}
    suite = results(tmp_path / "a", {"base": (EASY, [1.0, 1.2])}, {"law": scores, "art": {"z": 1.0}})
    alone = results(tmp_path / "b", {"sft": (EASY, [])})
    write_outcomes(alone, "sft", [ItemOutcome("tasks", "law", item, {"acc": 1.0}) for item in scores])
    comparison = compare_folders([suite, alone])
    (key,) = comparison.measures
    assert key == MetricKey("tasks", "law", "acc")
    assert comparison.measures[key].pairs[0].difference.gained == 5 and comparison.measures[key].unit == "share"
    (remark,) = comparison.remarks
    assert remark.startswith("left out, because only base has them: ")
    assert {"quiz: accuracy", "a: bits per byte", "group: accuracy"} == set(remark.partition("them: ")[2].split(", "))


def test_scores_below_chance_are_named(tmp_path):
    wrong = {str(n): 0 for n in range(40)} | {"1": 1}
    folder = results(tmp_path / "a", {"base": (EASY, [1.0, 1.0]), "sft": (wrong, [1.0, 1.0])})
    text = write_comparison(tmp_path, compare_folders([folder]))
    assert "below chance (by more than two standard errors of guessing): sft: quiz: accuracy" in text
    assert text.count("chance (") == 1
