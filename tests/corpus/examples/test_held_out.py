"""The texts held out for validation: each label in proportion, and no text on both sides."""

import random
from collections import Counter

from training.corpus.examples.held_out import hold_out

LABELS = ["a"] * 600 + ["b"] * 300 + ["c"] * 99 + ["single"]
TEXTS = [f"text {number}" for number in range(1000)]


def test_each_label_in_proportion_and_every_label_stays():
    split = hold_out(TEXTS, LABELS, 0.1, 0)
    assert sorted([*split.kept, *split.held_out]) == list(range(1000))
    assert Counter(LABELS[place] for place in split.held_out) == {"a": 60, "b": 30, "c": 10}
    assert split == hold_out(TEXTS, LABELS, 0.1, 0) != hold_out(TEXTS, LABELS, 0.1, 1)


def test_few_texts_of_many_labels_are_not_all_held_out():
    labels = [f"label {number // 3}" for number in range(300)]
    split = hold_out(TEXTS[:300], labels, 0.1, 0)
    assert len(split.held_out) == 30 and {labels[place] for place in split.kept} == set(labels)


def test_the_order_of_the_texts_does_not_matter():
    order = random.Random(0).sample(range(1000), 1000)
    split = hold_out([TEXTS[place] for place in order], [LABELS[place] for place in order], 0.1, 0)
    assert sorted(order[place] for place in split.held_out) == hold_out(TEXTS, LABELS, 0.1, 0).held_out


def test_equal_texts_are_on_one_side():
    texts = [form for number in range(100) for form in (f"Text {number}", f"text  {number} ", f"TEXT {number}")]
    labels = ["a" if number < 150 else "b" for number in range(300)]
    texts, labels = [*texts, "two labels", "two labels"], [*labels, "a", "b"]
    split = hold_out(texts, labels, 0.1, 0)
    sides = [{" ".join(texts[place].casefold().split()) for place in part} for part in split]
    assert len(split.held_out) == 30 and not sides[0] & sides[1] and "two labels" in sides[0]


def test_a_rare_label_has_a_text_on_both_sides():
    """Four of a hundred texts, whose share of the draw is less than one."""
    labels = ["rare"] * 4 + ["often"] * 96
    split = hold_out(TEXTS[:100], labels, 0.1, 0)
    assert Counter(labels[place] for place in split.held_out) == {"often": 9, "rare": 1}


def test_many_rare_labels_do_not_take_the_place_of_a_frequent_one():
    labels = ["often"] * 400 + [f"rare {number // 3}" for number in range(600)]
    split = hold_out(TEXTS, labels, 0.1, 0)
    assert len(split.held_out) == 100 and [labels[place] for place in split.held_out].count("often") >= 20


def test_nothing_to_draw():
    assert hold_out(["x", "x", "y"], ["a", "a", "b"], 0.1, 0).held_out == []
