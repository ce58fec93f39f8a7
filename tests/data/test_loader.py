"""A batch is a pure function of (seed, step)."""

import itertools

import numpy as np
import pytest
import torch
from split import loader, split

from training.common.errors import UserError
from training.data.loader import TokenLoader
from training.data.mixture import Mixture
from training.data.packing import PACKINGS, BestFitPacking, StreamPacking

LENGTHS = [17, 3, 250, 40, 1, 1, 90, 99, 500]  # 1001 tokens


def stream(tokens: int = 1001, global_batch_size: int = 8, seed: int = 0) -> TokenLoader:
    return loader(StreamPacking(split([tokens], numbered=True), 10), global_batch_size, seed)


def mixture(seed: int = 0, global_batch_size: int = 8, **options) -> TokenLoader:
    packings = [BestFitPacking(split(lengths, numbered=True), 10) for lengths in (LENGTHS, [30, 45, 5, 31])]
    return TokenLoader(Mixture({"large": 0.7, "small": 0.3}), packings, global_batch_size, seed, **options)


def test_an_epoch_visits_every_row_once():
    data = stream()  # 100 rows: 12 batches and a half
    seen = np.concatenate([data.sequence_ids(step) for step in range(13)])
    assert sorted(seen[:100]) == list(range(100))
    assert not np.array_equal(seen[:100], np.arange(100))


@pytest.mark.parametrize("make", [stream, mixture])
def test_any_step_can_be_asked_first_and_twice(make):
    data = make()
    later, earlier = data.sequence_ids(40), data.sequence_ids(3)
    fresh = make()
    assert np.array_equal(fresh.sequence_ids(3), earlier) and np.array_equal(fresh.sequence_ids(40), later)
    assert np.array_equal(data.sequence_ids(3), earlier)
    assert all(map(torch.equal, data.read(later)[:2], fresh.read(later)[:2]))


@pytest.mark.parametrize("make", [stream, mixture])
def test_epochs_and_seeds_differ(make):
    data = make(global_batch_size=20)
    assert not np.array_equal(data.sequence_ids(0), data.sequence_ids(5))
    assert not np.array_equal(data.sequence_ids(0), make(global_batch_size=20, seed=1).sequence_ids(0))


def test_a_row_is_the_stream_and_the_token_after_it():
    batch = stream().read(np.array([0, 99]))
    assert batch.input_ids.tolist() == [list(range(10)), list(range(990, 1000))]
    assert batch.labels.tolist() == [list(range(1, 11)), list(range(991, 1001))]
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64
    assert batch.position_ids is None


@pytest.mark.parametrize("make", [stream, mixture])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_processes_of_a_step_share_its_rows_and_their_count(make, processes):
    data = make()
    for step in range(20):
        rows = data.sequence_ids(step)
        parts = [make().sequence_ids(step)[rank::processes] for rank in range(processes)]
        assert np.array_equal(np.stack(parts, axis=1).ravel(), rows)
        scored = sum(int((data.read(part).labels != -100).sum()) for part in parts)
        assert scored == data.num_predictions(data.sequence_ids(step))


def test_a_batch_reaches_into_the_next_epochs():
    data = stream(tokens=31, global_batch_size=3)
    larger = TokenLoader(Mixture("one"), data.packings, 2, seed=0)  # 3 rows in batches of 2
    flat = np.concatenate([larger.sequence_ids(step) for step in range(6)])
    assert np.array_equal(flat, np.concatenate([data.sequence_ids(step) for step in range(4)]))


@pytest.mark.parametrize("packing", PACKINGS)
def test_positions_restart_where_a_document_does(packing):
    shards = split(LENGTHS, numbered=True)
    data = loader(PACKINGS[packing](shards, 10), 1, document_mask=True)
    starts = {0, *shards.document_ends[:-1].tolist()}
    restarts = 0
    for row in range(data.packings[0].num_sequences):
        _, labels, positions = (column[0].tolist() for column in data.read(np.array([row])))
        expected = [0]
        for before, label in itertools.pairwise(labels):
            # The end of text before a document belongs to it; padding is kept apart like one more document.
            continues = label == before == -100 or (label == before + 1 and label not in starts)
            expected.append(expected[-1] + 1 if continues else 0)
        assert positions == expected
        restarts += expected[1:].count(0)
    assert restarts == {"stream": 6, "best_fit": 3}[packing]


def test_the_documents_of_rows_are_named():
    data = loader(StreamPacking(split([25, 25, 3, 50], numbered=True), 10), 1)
    assert data.documents(np.array([0, 1])) == {"one": [0]}
    assert data.documents(np.array([4])) == {"one": [1, 2]}  # predicts tokens 41 to 50
    packed = loader(BestFitPacking(split([12, 7, 3, 20], numbered=True), 10), 1)
    found = [packed.documents(np.array([row]))["one"] for row in range(packed.packings[0].num_sequences)]
    assert sorted(found) == [[0], [0], [1, 2], [3], [3]]


def test_the_documents_of_a_mixture_come_with_their_folder():
    data = mixture()
    last = sum(packing.num_sequences for packing in data.packings) - 1
    named = data.documents(np.array([0, last]))
    assert list(named) == ["large", "small"] and named["large"] and named["small"]


def test_a_mixture_reads_each_row_from_its_own_member():
    data = mixture(document_mask=True)
    for step in range(5):
        rows = data.sequence_ids(step)
        batch = data.read(rows)
        members, _ = data.mixture.locate(np.arange(step * 8, step * 8 + 8))
        for row, member, *columns in zip(rows, members, *batch, strict=True):
            own = row - [0, data.packings[0].num_sequences][member]
            expected = data.packings[member].read(np.array([own]))[:, 0]
            assert np.array_equal(torch.stack(columns).numpy(), expected)


def test_each_member_of_a_mixture_goes_through_its_epochs():
    data = mixture()
    rows = np.concatenate([data.sequence_ids(step) for step in range(100)])
    first = 0
    for packing in data.packings:
        own = rows[(rows >= first) & (rows < first + packing.num_sequences)] - first
        for epoch in range(len(own) // packing.num_sequences):
            count = packing.num_sequences
            assert sorted(own[epoch * count :][:count]) == list(range(count))
        first += packing.num_sequences


def test_validation_rows_are_spread_over_every_member():
    data = mixture()
    large, small = data.evenly_spaced(10)
    rows = data.packings[0].num_sequences
    assert len(large) == 7 and len(small) == 3
    assert large[0] == 0 and large[-1] == rows - 1 and small[0] == rows
    assert small[-1] == rows + data.packings[1].num_sequences - 1
    assert np.ptp(np.diff(large)) <= 1
    assert [len(rows) for rows in data.evenly_spaced(1)] == [1, 1]
    assert [len(rows) for rows in data.evenly_spaced(10**6)] == [packing.num_sequences for packing in data.packings]


def test_what_a_run_takes_of_each_member():
    lines = mixture().describe(steps=10).splitlines()
    assert "large: 70.00% of the sequences requested, 70.00% in this run" in lines[0]
    assert f"{24 / data_rows('small'):.2f} epochs" in lines[1]


def data_rows(folder: str) -> int:
    data = mixture()
    return data.packings[data.mixture.folders.index(folder)].num_sequences


def test_fewer_tokens_than_a_batch_are_refused():
    with pytest.raises(UserError, match="'data': one: the split holds 70 tokens, fewer than one batch of 8 x 10"):
        stream(tokens=70)


def test_a_member_with_fewer_tokens_than_its_share_is_named():
    packings = [StreamPacking(split([1000]), 10), StreamPacking(split([15]), 10)]
    message = "'data': small: the split holds 15 tokens, fewer than its share of one batch, 2 x 10"
    with pytest.raises(UserError, match=message):
        TokenLoader(Mixture({"large": 3, "small": 1}), packings, 8, seed=0)
    TokenLoader(Mixture({"large": 7, "small": 1}), packings, 8, seed=0)
