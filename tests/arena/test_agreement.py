"""Agreement of raters: Krippendorff's alpha by his own example and by evalica, position bias, both orders."""

import random

import pytest
from arenas import battle, make_store

from training.arena.agreement import agreement, consistency, krippendorff_alpha, position_bias, rater_remarks, wilson
from training.arena.store import Vote

# Krippendorff (2011), section C: four observers, twelve units, some missing. Nominal alpha is 0.743.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)


def test_alpha_is_that_of_krippendorffs_example():
    units = [[value for value in unit if value is not None] for unit in zip(*OBSERVERS, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1
    assert krippendorff_alpha([["a", "b"], ["b", "a"]]) < 0
    assert krippendorff_alpha([["a"], ["b"]]) is None and krippendorff_alpha([["a", "a"]]) is None


def test_alpha_equals_that_of_evalica():
    evalica = pytest.importorskip("evalica")
    pandas = pytest.importorskip("pandas")
    generator = random.Random(0)
    rows = [[generator.choice(["a", "a", "b", "c", None]) for _ in range(40)] for _ in range(3)]
    expected = evalica.alpha(pandas.DataFrame(rows), distance="nominal").alpha
    units = [[value for value in unit if value is not None] for unit in zip(*rows, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_a_share():
    share = wilson(8, 10)
    assert (share.value, share.n) == (0.8, 10)
    assert share.lower == pytest.approx(0.4902, abs=1e-3) and share.upper == pytest.approx(0.9433, abs=1e-3)
    assert wilson(0, 0).value is None


def test_machines_against_people(tmp_path):
    battles = [battle() for _ in range(10)]
    outcomes = zip(battles, ["model_a", "model_b"] * 5, strict=True)
    with make_store(tmp_path / "arena.sqlite", *outcomes) as store:
        assert position_bias(store, "human").value == 0.5
        for each, vote in zip(battles, store.votes(), strict=True):  # agrees, and looks at both orders
            for swapped in (False, True):
                store.vote(Vote(each.id, "wise", vote.winner, "rule", swapped))
        assert agreement(store, "rule").alpha == 1 and agreement(store, "rule").battles == 10
        assert consistency(store, "rule").value == 1 and position_bias(store, "rule").value == 0.5
        for each in battles:  # always prefers what it sees first
            for swapped, winner in enumerate(("model_a", "model_b")):
                store.vote(Vote(each.id, "first", winner, "model", bool(swapped)))
        assert position_bias(store, "model").value == 1 and consistency(store, "model").value == 0
        assert agreement(store, "model").alpha < 0.05  # joined, they are ties
        remarks = " ".join(rater_remarks(store, "model"))
        assert "100 % (84 % to 100 %)" in remarks and "alpha" in remarks
