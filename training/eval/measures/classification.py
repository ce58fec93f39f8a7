"""Classification scores, and a TF-IDF baseline that needs no neural network."""

from collections.abc import Sequence
from typing import Any

from training.common.estimates import proportion


def scores(truth: Sequence[str], predicted: Sequence[str], labels: list[str], positive: str | None) -> dict[str, Any]:
    """Accuracy, F1, precision and recall, and the confusion matrix, by scikit-learn.

    Args:
        truth, predicted: labels, one per text.
        labels: all labels, in the order of the confusion matrix.
        positive: the label of precision, recall and F1; None for the mean over the labels (macro).

    Returns:
        `accuracy` (`value`, `stderr`, `n`, and as `chance` the share of the most frequent label), `f1`, `precision`,
        `recall`, and `confusion`: rows are the true labels, columns the predicted ones.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    average = {"average": "macro"} if positive is None else {"average": "binary", "pos_label": positive}
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0.0, **average
    )
    commonest = max(list(truth).count(label) for label in labels) / len(truth)
    outcomes = [guess == right for guess, right in zip(predicted, truth, strict=True)]
    return {
        "accuracy": proportion(outcomes, chance=commonest).to_json(),
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "confusion": confusion_matrix(truth, predicted, labels=labels).tolist(),
    }


def tfidf_baseline(
    train: tuple[list[str], list[str]], validation: tuple[list[str], list[str]], texts: list[str]
) -> list[str]:
    """Labels predicted by logistic regression on TF-IDF of words and word pairs, regularised as `validation` prefers.

    Args:
        train, validation: texts and labels.
        texts: the texts to label.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features, held_out = vectorizer.fit_transform(train[0]), vectorizer.transform(validation[0])
    fitted = [LogisticRegression(C=c, max_iter=1000).fit(features, train[1]) for c in (1, 10, 100, 1000)]
    best = max(fitted, key=lambda model: model.score(held_out, validation[1]))
    return best.predict(vectorizer.transform(texts)).tolist()
