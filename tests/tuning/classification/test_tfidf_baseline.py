"""The baseline without a network: what it reads, and that its work is bounded."""

import random
from collections import Counter

from training.tuning.classification import tfidf_baseline as module
from training.tuning.classification.tfidf_baseline import sample, tfidf_baseline


def labelled(count: int, seed: int) -> tuple[list[str], list[str]]:
    drawn = random.Random(seed)
    labels = drawn.choices(["sitting", "looking"], k=count)
    words = "the cat on a mat and another table".split()
    return [" ".join([*drawn.choices(words, k=5), label[:3]]) for label in labels], labels


def test_it_reads_words(capsys):
    texts, labels = labelled(50, 2)
    guesses = tfidf_baseline(labelled(200, 0), labelled(50, 1), texts, 0)
    assert sum(map(str.__eq__, guesses, labels)) >= 45
    assert "on 200 texts\n" in capsys.readouterr().out


def test_texts_without_words_are_texts():
    texts, labels = ["!", "?", "!!", "??"], ["a", "b", "a", "b"]
    assert tfidf_baseline((texts * 3, labels * 3), (texts, labels), texts, 0) == labels


def test_beyond_the_bounds_a_sample_with_every_label_is_fitted(monkeypatch, capsys):
    labels = ["common"] * 900 + ["rare"] * 99 + ["single"]
    texts = ["ten letter"] * 1000
    assert sample(texts, labels, 0) == list(range(1000))
    monkeypatch.setattr(module, "MAX_CHARACTERS_TIMES_LABELS", 3 * 1000)  # room for 100 texts
    chosen = sample(texts, labels, 0)
    assert Counter(labels[place] for place in chosen) == {"common": 89, "rare": 10, "single": 1}
    assert chosen == sample(texts, labels, 0) != sample(texts, labels, 1)
    tfidf_baseline((texts, labels), (texts[:9], labels[:9]), texts[:9], 0)
    assert "on 100 texts of 1,000" in capsys.readouterr().out
