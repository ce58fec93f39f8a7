"""Weights that change in the course of a run, to the row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split import split

from training.data.curriculum import Curriculum
from training.data.loader import TokenLoader
from training.data.mixture import Mixture
from training.data.packing import StreamPacking

WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 30), min_size=1, max_size=5)


def loader() -> TokenLoader:
    """20 steps of 8 rows: at first three of a for each b, from step 15 on as much of c as of b."""
    curriculum = Curriculum({"a": 3, "b": 1}, {0.75: {"b": 1, "c": 1}}, steps=20, sequences_per_step=8)
    return TokenLoader(curriculum, [StreamPacking(split([1000]), 10)] * 3, 8, seed=0)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, st.dictionaries(st.sampled_from([0.2, 0.5, 0.75]), WEIGHTS, min_size=1), st.integers(1, 20))
def test_every_phase_has_its_shares_at_every_row(data, later, sequences_per_step):
    curriculum = Curriculum(data, later, steps=40, sequences_per_step=sequences_per_step)
    rows = 40 * sequences_per_step
    members, before = curriculum.locate(np.arange(rows))
    assert curriculum.starts == [0, *sorted(round(40 * share) for share in later)]
    for start, end, weights in zip(
        curriculum.starts, [*curriculum.starts[1:], 40], [data, *(later[share] for share in sorted(later))], strict=True
    ):
        here = members[start * sequences_per_step : end * sequences_per_step]
        for member, folder in enumerate(curriculum.folders):
            requested = weights.get(folder, 0) / sum(weights.values()) * np.arange(1, len(here) + 1)
            assert np.abs(np.cumsum(here == member) - requested).max() < 1
    for member in range(len(curriculum.folders)):  # each member goes on where it was
        assert np.array_equal(before[members == member], np.arange((members == member).sum()))
    for count in (0, 1, rows // 3, rows):
        assert np.array_equal(curriculum.counts(count), np.bincount(members[:count], minlength=len(curriculum.folders)))
    assert curriculum.shares.sum() == pytest.approx(1)
    assert np.abs(curriculum.shares * rows - curriculum.counts(rows)).max() < len(later) + 1


def test_any_place_can_be_asked_first():
    curriculum = Curriculum({"a": 2, "b": 5}, {0.3: "c", 0.6: {"a": 1, "c": 4}}, steps=30, sequences_per_step=7)
    members, before = curriculum.locate(np.arange(210))
    for places in (np.array([209, 0, 100]), np.arange(60, 130)[::-1]):
        assert all(map(np.array_equal, curriculum.locate(places), (members[places], before[places])))


def test_a_run_reads_each_row_of_a_member_once_an_epoch_through_all_phases():
    data = loader()
    rows = np.concatenate([data.sequence_ids(step) for step in range(20)])
    members = rows // data.packings[0].num_sequences
    assert np.bincount(members[: 15 * 8]).tolist() == [90, 30] and np.bincount(members[15 * 8 :]).tolist() == [
        0,
        20,
        20,
    ]
    for member in range(3):
        own = rows[members == member]
        assert len(set(own.tolist())) == len(own)  # none of them has come round once
    assert np.array_equal(loader().sequence_ids(17), data.sequence_ids(17))
    assert data.mixture.shares.tolist() == [0.5625, 0.3125, 0.125]
    assert [len(rows) for rows in data.evenly_spaced(64)] == [36, 20, 8]


def test_the_shares_of_each_phase_are_told():
    assert loader().mixture.describe().splitlines() == [
        "    from step 0: 75.00% a, 25.00% b, 0.00% c",
        "    from step 15: 0.00% a, 50.00% b, 50.00% c",
    ]


def test_until_the_first_change_it_is_the_mixture():
    weights = {"a": 7, "b": 2, "c": 4}
    rows = np.arange(80)
    changed = Curriculum(weights, {0.8: "b"}, steps=10, sequences_per_step=10)
    assert all(map(np.array_equal, changed.locate(rows), Mixture(weights).locate(rows)))


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({1: "b"}, "'curriculum': a phase begins at a fraction of the run, from 0 to 1, not 1"),
        ({"half": "b"}, "from 0 to 1, not 'half'"),
        ({True: "b"}, "from 0 to 1, not True"),
        ({0.001: "b"}, "'curriculum': 0.001 of 20 steps leaves a phase without a step"),
        ({0.5: "b", 0.51: "c"}, "'curriculum': 0.51 of 20 steps leaves a phase without a step"),
        ({0.999: "b"}, "'curriculum': 0.999 of 20 steps leaves a phase without a step"),
        ({0.5: {}}, "'curriculum.0.5' names no folder"),
        ({0.5: {"b": 0}}, "'curriculum.0.5': the weight of b must be a number above 0, not 0"),
    ],
)
def test_what_is_wrong_with_a_phase_is_named(later, message):
    with pytest.raises(ValueError) as caught:
        Curriculum("a", later, steps=20, sequences_per_step=8)
    assert message in str(caught.value)
