import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.corpus.output.token_budget import choose, interleave, requested_shares, tokens_to_take
from training.corpus.sources import SourceConfig


def sources(**weights):
    return [SourceConfig(path=name, weight=weight) for name, weight in weights.items()]


def test_weights_are_kept_and_the_scarcest_source_sets_the_total():
    available = np.array([1_000, 10_000])
    taken = tokens_to_take(sources(a=3, b=1), available, temperature=1, max_tokens=None)
    assert taken.tolist() == [1_000, 333]
    assert tokens_to_take(sources(a=3, b=1), available, 1, max_tokens=400).tolist() == [300, 100]


def test_small_sources_are_repeated_up_to_their_epochs():
    few = SourceConfig(path="few", weight=1, max_epochs=4)
    many = SourceConfig(path="many", weight=1)
    assert tokens_to_take([few, many], np.array([100, 1_000]), 1, None).tolist() == [400, 400]
    assert tokens_to_take([few, many], np.array([100, 300]), 1, None).tolist() == [300, 300]


def test_a_source_of_its_own_limit():
    limited = SourceConfig(path="a", weight=1, max_tokens=50)
    other = SourceConfig(path="b", weight=4)
    assert tokens_to_take([limited, other], np.array([1_000, 1_000]), 1, None).tolist() == [50, 200]


def test_without_weights_everything_is_taken_once():
    assert tokens_to_take(sources(a=None, b=None), np.array([7, 1_000]), 1, None).tolist() == [7, 1_000]
    assert tokens_to_take(sources(a=None, b=None), np.array([100, 900]), 1, 500).tolist() == [50, 450]


def test_temperature_lifts_small_sources():
    available = np.array([100, 10_000])
    assert requested_shares(sources(a=None, b=None), available, 1) is None
    assert requested_shares(sources(a=None, b=None), available, 2) == pytest.approx([1 / 11, 10 / 11])
    assert requested_shares(sources(a=3, b=1), available, 2) == pytest.approx([0.75, 0.25])


def test_choice_is_whole_epochs_and_a_drawn_rest():
    lengths = np.random.default_rng(0).integers(1, 50, 1_000)
    total = lengths.sum()
    chosen, taken = choose(lengths, int(2.3 * total), seed=1)
    counts = np.bincount(chosen, minlength=1_000)
    assert set(counts) == {2, 3}
    assert taken.sum() == int(2.3 * total)
    assert (taken > 0).all() and (taken != lengths[chosen]).sum() <= 1
    again, _ = choose(lengths, int(2.3 * total), seed=1)
    other, _ = choose(lengths, int(2.3 * total), seed=2)
    assert (again == chosen).all() and not np.array_equal(other, chosen)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 300))
def test_any_number_of_tokens_is_met_exactly(lengths, tokens):
    chosen, taken = choose(np.array(lengths), tokens, seed=0)
    assert taken.sum() == tokens and (taken > 0).all()
    assert (taken <= np.array(lengths)[chosen]).all()


def test_every_stretch_of_the_mixture_has_the_shares():
    sources, numbers = interleave([np.full(9_000, 10), np.full(1_000, 10)])
    assert (numbers[sources == 1] == np.arange(1_000)).all()
    per_hundred = sources.reshape(-1, 100).sum(axis=1)
    assert per_hundred.min() >= 9 and per_hundred.max() <= 11
