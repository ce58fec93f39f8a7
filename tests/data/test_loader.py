"""A batch is a pure function of (seed, step)."""

from types import SimpleNamespace

import numpy as np
import pytest

from training.data.loader import TokenLoader
from training.errors import UserError


def loader(tokens: int = 1001, sequence_length: int = 10, global_batch_size: int = 8, seed: int = 0) -> TokenLoader:
    shards = SimpleNamespace(tokens=np.arange(tokens, dtype=np.uint16))
    return TokenLoader(shards, sequence_length, global_batch_size, seed)


def test_an_epoch_visits_every_window_once():
    data = loader()  # 100 windows: 12 batches and a half
    seen = np.concatenate([data.windows(step) for step in range(13)])
    assert sorted(seen[:100]) == list(range(100))
    assert not np.array_equal(seen[:100], np.arange(100))


def test_any_step_can_be_asked_first_and_twice():
    data = loader()
    later, earlier = data.windows(40), data.windows(3)
    fresh = loader()
    assert np.array_equal(fresh.windows(3), earlier) and np.array_equal(fresh.windows(40), later)
    assert np.array_equal(data.windows(3), earlier)


def test_epochs_and_seeds_differ():
    data = loader(global_batch_size=100)
    assert not np.array_equal(data.windows(0), data.windows(1))
    assert not np.array_equal(data.windows(0), loader(global_batch_size=100, seed=1).windows(0))


def test_a_window_is_the_stream_and_the_token_after_it():
    data = loader()
    rows = data.read(np.array([0, 99]))
    assert rows.tolist() == [list(range(11)), list(range(990, 1001))]


def test_the_processes_of_a_step_share_it_without_overlap():
    windows = loader().windows(5)
    assert sorted(np.concatenate([windows[rank::2] for rank in range(2)])) == sorted(windows)


def test_fewer_tokens_than_a_batch_are_refused():
    with pytest.raises(UserError, match="70 tokens, less than one batch of 8 x 10"):
        loader(tokens=70)
