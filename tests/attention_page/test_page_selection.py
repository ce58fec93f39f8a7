"""Choice of what a page shows of a record, and the size of the file."""

import pytest
from insight import write_record

from training.attention_page.page import write_page
from training.attention_page.selection import FEWEST_TOKENS, select
from training.insight.record import HeadScores, Probe, Record, StepScores


def imagined(layers, heads, tokens, steps, vectors=()):
    """A record of this size without its files."""
    probes = [Probe(str(place), "text", [0] * tokens, ["a"] * tokens) for place in range(3)]
    every = [StepScores(step, step, 1.0, 0.0, 0.0, 1.0, []) for step in range(steps)]
    last = [
        HeadScores(steps - 1, 0, layer, head, "repeated", *[float(layer == head)] * 7)
        for layer in range(layers)
        for head in range(heads)
    ]
    return Record(256, 3.0, layers, heads, heads, 64, 0.125, list(vectors), probes, None, every, last)


def test_a_small_record_is_shown_whole(tmp_path):
    page = write_page(write_record(tmp_path / "insight"), tmp_path / "page.html", "small")
    assert page.left_out == [] and page.size == page.path.stat().st_size < 200_000


def test_the_quickstart_keeps_all_steps_and_heads():
    record = imagined(4, 2, 64, 40, [(2, 0)])
    selection = select(record, 2_900_000, 0.55)
    assert (len(selection.steps), len(selection.heads), selection.tokens) == (40, 8, 64)
    assert len(selection.vector_steps) >= 10


@pytest.mark.parametrize(
    ("layers", "heads", "tokens", "steps"), [(32, 32, 512, 40), (12, 12, 64, 40), (4, 2, 512, 9), (48, 64, 64, 1)]
)
def test_a_large_record_is_cut(layers, heads, tokens, steps):
    record = imagined(layers, heads, tokens, steps, [(1, 1)])
    selection = select(record, 2_900_000, 0.7)
    cells = 3 * selection.tokens * (selection.tokens + 1) // 2
    maps = len(selection.steps) * len(selection.heads) * cells
    vectors = len(selection.vector_steps) * len(selection.vectors) * 3 * 3 * 64 * selection.tokens
    assert (maps + vectors) * 0.7 * 4 / 3 <= 2_900_000
    assert {0, steps - 1} >= {selection.steps[0], selection.steps[-1]}
    assert set(selection.vector_steps) <= set(selection.steps) <= set(selection.score_steps)
    assert selection.tokens >= min(tokens, FEWEST_TOKENS) and (1, 1) in selection.heads
    assert len(selection.left_out(record)) >= 1


def test_the_file_is_not_larger_than_asked(tmp_path):
    record = write_record(tmp_path / "insight")
    whole = write_page(record, tmp_path / "page.html", "small")
    page = write_page(record, tmp_path / "page.html", "small", limit=whole.size - 4_000)
    assert page.size <= whole.size - 4_000
    assert page.left_out and page.left_out[0] in page.path.read_text()
    smallest = write_page(record, tmp_path / "page.html", "small", limit=1)  # a single map
    assert smallest.size < page.size and "Maps of 1 of 4 heads" in smallest.left_out[1]
