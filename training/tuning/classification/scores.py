"""Classification scores: accuracy, F1 and the confusion matrix, and the same for each label as tables in CSV."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.estimates import Estimate, proportion

LABELS, CONFUSION = "labels.csv", "confusion.csv"


@dataclass(frozen=True)
class LabelScores:
    """Scores of one label; `texts` have it as their true label."""

    label: str
    texts: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of predicted labels.

    Attributes:
        accuracy: with the share of the most frequent label as `chance`.
        f1, precision, recall: of the positive label, or the means over the labels that some text has.
        labels: scores of each label.
        confusion: counts; rows are the true labels, columns the predicted ones, both in the order of `labels`.
        outcomes: for each text, 1 if its predicted label is the true one, else 0.
    """

    accuracy: Estimate
    f1: float
    precision: float
    recall: float
    labels: list[LabelScores]
    confusion: list[list[int]]
    outcomes: list[float]

    def to_json(self) -> dict[str, Any]:
        """The figures over all texts, whose size does not depend on the number of labels."""
        figures = {"f1": self.f1, "precision": self.precision, "recall": self.recall}
        return {"accuracy": self.accuracy.to_json()} | figures

    def write(self, folder: Path) -> list[str]:
        """Write labels.csv and confusion.csv.

        Returns:
            The names of the files.
        """
        names = [row.label for row in self.labels]
        scored = [
            [row.label, row.texts, *(f"{value:.4f}" for value in (row.precision, row.recall, row.f1))]
            for row in self.labels
        ]
        tables = {
            LABELS: [["label", "texts", "precision", "recall", "f1"], *scored],
            CONFUSION: [["true label", *names], *([name, *row] for name, row in zip(names, self.confusion))],
        }
        for name, rows in tables.items():
            with (folder / name).open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(rows)
        return list(tables)


def classification_scores(
    truth: Sequence[str], predicted: Sequence[str], labels: list[str], positive: str | None
) -> ClassificationScores:
    """The scores by scikit-learn.

    Args:
        truth, predicted: labels, one per text.
        labels: all labels, in the order of the confusion matrix.
        positive: the label of precision, recall and F1; None for the mean (macro) over the labels in `truth`.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    columns = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0.0)
    by_label = [
        LabelScores(label, int(texts), float(precision), float(recall), float(f1))
        for label, precision, recall, f1, texts in zip(labels, *columns, strict=True)
    ]
    counted = [row for row in by_label if (row.texts if positive is None else row.label == positive)]

    def mean(name: str) -> float:
        return sum(getattr(row, name) for row in counted) / len(counted)

    outcomes = [float(guess == right) for guess, right in zip(predicted, truth, strict=True)]
    return ClassificationScores(
        accuracy=proportion(outcomes, chance=max(Counter(truth).values()) / len(truth)),
        f1=mean("f1"),
        precision=mean("precision"),
        recall=mean("recall"),
        labels=by_label,
        confusion=confusion_matrix(truth, predicted, labels=labels).tolist(),
        outcomes=outcomes,
    )
