"""Documents into rows: every token predicted once, in as few rows as best-fit needs, and documents kept apart."""

import typing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from split import VOCAB_SIZE, loader, split
from tiny_model import build

from training.data.packing import PACKINGS, BestFitPacking, StreamPacking, best_fit_decreasing
from training.pretraining.config import PretrainConfig


def test_the_recipe_names_every_packing():
    assert typing.get_args(typing.get_type_hints(PretrainConfig)["packing"]) == tuple(PACKINGS)


lengths_of_documents = st.lists(st.integers(1, 60), min_size=1, max_size=40)
sequence_lengths = st.integers(1, 24)


@settings(max_examples=200, deadline=None)
@given(lengths_of_documents, sequence_lengths)
def test_best_fit_predicts_every_token_once_from_the_one_before(lengths, sequence_length):
    shards = split(lengths, numbered=True)
    packing = BestFitPacking(shards, sequence_length)
    inputs, labels, _ = packing.read(np.arange(packing.num_sequences))
    scored = labels != -100
    assert sorted(labels[scored]) == list(range(len(shards)))
    assert np.array_equal(inputs[scored], (labels[scored] - 1) % len(shards))
    assert (inputs[~scored] == len(shards) - 1).all()  # padding reads the last end of text
    assert scored.sum() == packing.num_predictions == packing.predictions(np.arange(packing.num_sequences)).sum()
    assert packing.utilisation == pytest.approx(scored.mean())
    # Padding is at the end of a row, where attention from left to right does not meet it.
    assert (np.diff(scored.astype(int), axis=1) <= 0).all()


@settings(max_examples=100, deadline=None)
@given(lengths_of_documents, sequence_lengths)
def test_the_stream_predicts_every_token_once_but_less_than_a_row(lengths, sequence_length):
    shards = split(lengths, numbered=True)
    packing = StreamPacking(shards, sequence_length)
    inputs, labels, _ = packing.read(np.arange(packing.num_sequences))
    assert np.array_equal(labels.ravel(), np.arange(1, packing.num_predictions + 1))
    assert np.array_equal(inputs, labels - 1)
    assert 1 <= len(shards) - packing.num_predictions <= sequence_length
    assert packing.utilisation == 1 if packing.num_sequences else True


@settings(max_examples=100, deadline=None)
@given(lengths_of_documents, sequence_lengths)
def test_documents_are_cut_only_where_they_outgrow_a_row(lengths, sequence_length):
    packing = BestFitPacking(split(lengths), sequence_length)
    pieces = packing.pieces(np.arange(packing.num_sequences))
    counts = np.bincount(pieces.document[pieces.document >= 0], minlength=len(lengths))
    assert counts.tolist() == [-(-length // sequence_length) for length in lengths]


@pytest.mark.parametrize("packing", PACKINGS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_rows_come_in_any_order_and_company(packing, data):
    packing = PACKINGS[packing](split(data.draw(lengths_of_documents) + [30], seed=1), 7)
    rows = np.array(data.draw(st.lists(st.integers(0, packing.num_sequences - 1), min_size=1, max_size=9)))
    alone = np.concatenate([packing.read(rows[place : place + 1]) for place in range(len(rows))], axis=1)
    assert np.array_equal(packing.read(rows), alone)


def bins_of(histogram: np.ndarray, capacity: int) -> list[int]:
    """The room left in each bin, sorted; and on the way that the groups hold all pieces and no bin overflows."""
    groups = best_fit_decreasing(histogram, capacity)
    held = np.zeros(capacity + 1, dtype=int)
    for count, space, composition in groups:
        assert count > 0 and space >= 0
        assert space + sum(length * copies for length, copies in composition.items()) == capacity
        for length, copies in composition.items():
            held[length] += count * copies
    assert np.array_equal(held[1:], histogram[1:])
    return sorted(space for count, space, _ in groups for _ in range(count))


def one_by_one(lengths: list[int], capacity: int, best: bool) -> list[int]:
    """The room left in each bin, when every piece goes to the fullest (or else the first) bin that has room for it."""
    spaces: list[int] = []
    for length in lengths:
        fitting = [number for number, space in enumerate(spaces) if space >= length]
        if not fitting:
            spaces.append(capacity - length)
        else:
            chosen = min(fitting, key=lambda number: spaces[number]) if best else fitting[0]
            spaces[chosen] -= length
    return sorted(spaces)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.lists(st.integers(1, size), max_size=60))))
def test_the_histogram_packs_as_best_fit_decreasing_does_piece_by_piece(case):
    capacity, lengths = case
    histogram = np.bincount(lengths, minlength=capacity + 1) if lengths else np.zeros(capacity + 1, dtype=int)
    assert bins_of(histogram, capacity) == one_by_one(sorted(lengths, reverse=True), capacity, best=True)


def test_at_least_as_tight_as_first_fit():
    for seed in range(20):
        lengths = realistic_lengths(300, seed) % 256 + 1
        bins = bins_of(np.bincount(lengths, minlength=257), 256)
        assert len(bins) <= len(one_by_one(lengths.tolist(), 256, best=False))
        assert len(bins) >= -(-lengths.sum() // 256)


def realistic_lengths(documents: int, seed: int = 0) -> np.ndarray:
    """Like pages of the web: log-normal, median 245 tokens, a tenth over 1100."""
    return np.maximum(2, np.random.default_rng(seed).lognormal(5.5, 1.2, documents).astype(int))


@pytest.mark.parametrize("sequence_length", [128, 1024, 2048])
def test_hardly_a_slot_is_wasted(sequence_length):
    packing = BestFitPacking(split(realistic_lengths(5000)), sequence_length)
    assert packing.utilisation >= 0.98


def test_the_cost_of_packing_does_not_grow_with_the_documents():
    """A hundred times the documents make no more groups than there are ways to fill rows of that length."""
    few, many = (
        len(best_fit_decreasing(np.bincount(realistic_lengths(count) % 256, minlength=257), 256))
        for count in (5_000, 500_000)
    )
    assert many <= 3 * 256 and many < 2 * few


def piece_losses(model, batch) -> torch.Tensor:
    """The loss of each slot, (rows, seq); 0 where it is not scored."""
    logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("preset", ["scratch", "gpt2"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_document_in_a_masked_row_costs_what_it_costs_alone(packing, preset, attention):
    """Loss of each piece and gradient of all, in fp32: to 1e-5 of the largest number."""
    shards = split([9, 30, 4, 11, 2, 16, 7, 40, 1, 5], seed=2)
    plan = PACKINGS[packing](shards, 16)
    data = loader(plan, 1, document_mask=True)
    rows = np.arange(plan.num_sequences)
    model = build(preset, vocab_size=VOCAB_SIZE, tie_word_embeddings=False)
    model.set_attn_implementation(attention)

    packed = piece_losses(model, data.read(rows))
    packed.sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    pieces = plan.pieces(rows)
    found = torch.stack([part.sum() for part in packed.detach().flatten().split(pieces.length.tolist())])
    stored = torch.from_numpy(shards.tokens.astype(np.int64))
    alone = torch.zeros(len(found))
    for number, (document, start, length) in enumerate(zip(*pieces, strict=True)):
        if document >= 0:
            input_ids, labels = stored[start - 1 + np.arange(length)][None], stored[start : start + length][None]
            logits = model(input_ids=input_ids).logits  # no positions, no mask: a plain call
            loss = torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum")
            loss.backward()
            alone[number] = loss.detach()
    assert (pieces.document >= 0).sum() > plan.num_sequences  # some rows are shared
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-5 * max(1, gradient.abs().max().item()))


def test_without_the_mask_documents_do_see_each_other():
    """So that the test above cannot pass by accident."""
    shards = split([9, 30, 4, 11, 2, 16, 7, 40, 1, 5], seed=2)
    plan = BestFitPacking(shards, 16)
    rows = np.arange(plan.num_sequences)
    model = build("scratch", vocab_size=VOCAB_SIZE)
    with torch.no_grad():
        masked, crossed = (
            piece_losses(model, loader(plan, 1, document_mask=mask).read(rows)).sum() for mask in (True, False)
        )
    assert abs(masked - crossed) > 1e-2
