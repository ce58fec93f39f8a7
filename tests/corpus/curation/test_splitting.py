import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.corpus.curation.splitting import VALIDATION_SHARE, hold_out, line_end, split_key, whole_characters


@given(st.lists(st.integers(1, 500), min_size=2, max_size=200), st.floats(0.01, 0.5))
def test_as_much_is_held_out_as_fits(sizes, fraction):
    sizes = np.array(sizes)
    keys = np.array([split_key(0, str(unit)) for unit in range(len(sizes))], dtype=np.uint64)
    target = fraction * sizes.sum()
    held_out = hold_out(keys, sizes, target)
    fitting = sizes <= VALIDATION_SHARE * target
    if not fitting.any():
        assert held_out.sum() == 1 and sizes[held_out] == sizes.min()
        return
    assert not held_out[~fitting].any()
    total = sizes[held_out].sum()
    assert 0 < total <= target
    left = fitting & ~held_out
    assert not left.any() or sizes[left].min() > target - total


def test_what_is_held_out_does_not_depend_on_the_order_of_units():
    sizes = np.random.default_rng(0).integers(1, 100, 300)
    keys = np.array([split_key(3, str(unit)) for unit in range(300)], dtype=np.uint64)
    order = np.random.default_rng(1).permutation(300)
    assert (hold_out(keys, sizes, 1_000)[order] == hold_out(keys[order], sizes[order], 1_000)).all()


def test_another_seed_holds_out_others():
    sizes = np.full(300, 10)
    first, second = (
        hold_out(np.array([split_key(seed, str(unit)) for unit in range(300)], dtype=np.uint64), sizes, 300)
        for seed in (0, 1)
    )
    assert first.sum() == second.sum() == 30 and (first != second).any()


def test_cuts_fall_between_lines_or_characters():
    text = "éé\néé"  # 2 bytes an é
    assert line_end(text, 8, slack=3) == 5
    assert line_end(text, 8, slack=2) == 7  # the line end is too far
    assert line_end(text, 3, slack=3) == 2
    assert [whole_characters(text, most) for most in (0, 1, 2, 5, 6, 99)] == [0, 0, 2, 5, 5, 9]
