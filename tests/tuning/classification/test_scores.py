"""Classification scores: what they count, and that no figure of the stage grows with the square of the labels."""

import csv
import json

import pytest

from training.commands.classify import table
from training.corpus.examples.labelled import Labelled
from training.tuning.classification.classifier import report_absent
from training.tuning.classification.scores import classification_scores


def test_scores_count_what_they_say():
    truth, guesses = list("aaabbb"), list("aabbba")
    scores = classification_scores(truth, guesses, ["a", "b"], positive="b")
    assert scores.confusion == [[2, 1], [1, 2]] and scores.outcomes == [1, 1, 0, 1, 1, 0]
    assert scores.precision == scores.recall == scores.f1 == pytest.approx(2 / 3)
    assert scores.accuracy.value == pytest.approx(4 / 6) and scores.accuracy.chance == 0.5
    one_sided = classification_scores(list("aab"), list("aaa"), ["a", "b"], positive=None)
    assert one_sided.f1 == pytest.approx((0.8 + 0.0) / 2)


def test_a_perfect_model_scores_one_on_a_split_without_some_labels():
    scores = classification_scores(list("aab"), list("aab"), list("abcdef"), positive=None)
    assert scores.f1 == scores.precision == scores.recall == 1.0 and len(scores.labels) == 6


def test_a_split_without_the_positive_label_is_told(capsys):
    data = {"validation": Labelled(["x"], ["ham"]), "test": Labelled(["x", "y"], ["ham", "spam"])}
    report_absent("spam", data)
    (line,) = capsys.readouterr().out.splitlines()
    assert "no validation text has the label 'spam'" in line and "'data.validation'" in line
    report_absent(None, data)
    assert not capsys.readouterr().out


def test_the_figures_of_77_labels_are_tables_and_not_in_the_provenance(tmp_path):
    labels = [f"label, {number}" for number in range(77)]
    truth = labels * 4
    scores = classification_scores(truth, [*labels[1:], labels[0], *truth[77:]], labels, positive=None)
    assert len(json.dumps(scores.to_json())) < 300
    assert scores.write(tmp_path) == ["labels.csv", "confusion.csv"]
    with (tmp_path / "confusion.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header[1:] == labels and [[int(count) for count in row[1:]] for row in rows] == scores.confusion
    with (tmp_path / "labels.csv").open(newline="") as stream:
        (first, *_) = csv.DictReader(stream)
    assert first == {"label": "label, 0", "texts": "4", "precision": "0.7500", "recall": "0.7500", "f1": "0.7500"}


def test_a_better_baseline_is_said_in_one_line():
    truth = list("ab" * 50)
    good, poor = (classification_scores(truth, guesses, ["a", "b"], None) for guesses in (truth, ["a"] * 100))
    last = table({"test": poor, "baseline": good}, None).splitlines()[-1]
    assert "better by 50.0 points" in last and "docs/classification.md" in last
    assert "learning_rate" in last and "max_length" in last
    for scores in ({"test": good, "baseline": poor}, {"test": good, "baseline": good}, {"test": poor}):
        assert "baseline is better" not in table(scores, None)
