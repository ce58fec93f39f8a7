"""The pictures of attention hold the numbers of the record and of the model."""

import re
import shutil
import stat

import numpy as np
import pytest
from insight import CAPTURED, PERIOD, write_record
from matplotlib.figure import Figure
from PIL import Image

from training.insight.formation import measured_formation
from training.insight.record import Record, probability
from training.insight.walkthrough import Walkthrough
from training.plots.insight import film as films
from training.plots.insight.explanation import as_page, dot_product_table, largest_terms, number, softmax_table, steps
from training.plots.insight.film import HeadFilm, draw_film
from training.plots.insight.maps import visible
from training.plots.insight.phases import draw_phases


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> Record:
    return write_record(tmp_path_factory.mktemp("record"))


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that were saved, which are not drawn."""
    figures = []
    monkeypatch.setattr("training.plots.insight.phases.save", lambda figure, file: figures.append(figure))
    return figures


def vertical_lines(axes) -> list[float]:
    return [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]


def test_strips_hold_the_figures_of_the_record(record, tmp_path, drawn):
    draw_phases(record, [tmp_path / "phases.png"], "a run", expected=200_000.0)
    losses, context, induction, positions = drawn[0].axes[:4]
    places = [512.0, 1024.0, 8192.0, 65536.0]  # the start is half as far as the first step
    repeated, held_out = losses.lines[:2]
    assert list(repeated.get_xdata()) == list(held_out.get_xdata()) == places
    assert list(held_out.get_ydata()) == [scores.loss for scores in record.steps]
    assert list(repeated.get_ydata()) == [scores.repeat_loss for scores in record.steps]
    assert list(context.lines[1].get_ydata()) == [scores.in_context_learning for scores in record.steps]
    best = max(induction.lines, key=lambda line: line.get_ydata()[-1])
    assert list(best.get_ydata()) == [
        head.induction for head in record.head_scores if (head.layer, head.head, head.probe) == (1, 0, "repeated")
    ]
    assert "head 1.0: 1.00" in [text.get_text() for text in induction.texts]
    rows = positions.collections[0].get_array().reshape(-1, len(CAPTURED))
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-12)
    assert rows[-1, -1] < 0 < rows[0, -1]
    for axes in drawn[0].axes[:4]:
        assert vertical_lines(axes) == [measured_formation(record.head_scores), 200_000.0]
    assert positions.get_xlim()[1] >= 200_000


def test_a_law_that_is_far_away_is_a_sentence(record, tmp_path, drawn):
    draw_phases(record, [tmp_path / "phases.png"], "a run", expected=3.3e7)
    assert vertical_lines(drawn[0].axes[0]) == [8192]
    assert "33M tokens, 500 times as many" in " ".join(drawn[0].get_supxlabel().split())


def test_an_animation_has_a_frame_for_each_step(record, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    film = HeadFilm(record, (1, 0), "induction")
    np.testing.assert_array_equal(film.maps(64)[0], probability(record.snapshot(64).attention[0][1, 0]))
    assert film.curve("repeated")[-1] == pytest.approx(np.diagonal(film.maps(64)[0], 1 - PERIOD).mean(), abs=0.01)
    assert draw_film(film, tmp_path, "head 1.0") == ["head-1.0.gif"]
    image = Image.open(tmp_path / "head-1.0.gif")
    assert image.n_frames == len(CAPTURED) and image.info["loop"] == 0
    first = np.asarray(image.convert("RGB")).astype(int)
    image.seek(3)
    last = np.asarray(image.convert("RGB")).astype(int)
    assert image.info["duration"] > 1000
    changed = np.argwhere(np.abs(last - first).sum(2) > 200)
    assert len(changed) > 1000 and changed[:, 1].min() < 450 < changed[:, 1].max()  # both maps


@pytest.mark.parametrize("works", [True, False])
def test_a_film_is_encoded_by_ffmpeg(tmp_path, monkeypatch, capsys, works):
    """By a stand-in that keeps the number of bytes it gets, or fails."""
    program = tmp_path / "ffmpeg"
    ends = 'wc -c > "$last"' if works else "echo broken >&2; exit 1"
    program.write_text(f"#!/bin/sh\nfor last; do :; done\n{ends}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    frames = [np.zeros((6, 4, 3), np.uint8)] * 3
    films._write_mp4(frames, tmp_path / "head.mp4")
    if works:
        assert int((tmp_path / "head.mp4").read_text()) == 6 * 4 * 3 * (4 + 1 + 10)  # the first and last frame stay
    else:
        assert not (tmp_path / "head.mp4").exists() and "broken" in capsys.readouterr().out


@pytest.fixture(scope="module")
def walk() -> Walkthrough:
    """Five tokens, four dimensions: every number by hand."""
    draw = np.random.default_rng(0)
    query, key, value = draw.normal(size=(3, 5, 4))
    products = query @ key.T
    seen = np.tril(np.ones((5, 5), bool))
    weights = np.where(seen, np.exp(products * 0.5), 0)
    weights /= weights.sum(1, keepdims=True)
    stream, output = draw.normal(size=(5, 6)), draw.normal(size=(4, 6))
    return Walkthrough(
        **{"model": "it", "head": (1, 3), "sharing": 2, "heads": 4, "turned": ["RoPE"], "scale": 0.5},
        **{"tokens": ["a", "\n", "`|", " b", "c"], "token_ids": [1, 2, 3, 4, 5]},
        **{"embedding": stream, "stream": stream, "normed": stream, "query": query, "key": key, "value": value},
        **{"products": products, "weights": weights, "mixed": weights @ value, "added": weights @ value @ output},
    )


def test_a_dot_product_is_spelt_out(walk):
    header, query, key, product = dot_product_table(walk)
    for place, own, other, both in zip(header[1:-1], query[1:], key[1:], product[1:]):
        assert own == number(walk.query[4, int(place)]) and other == number(walk.key[walk.column, int(place)])
        assert both == number(walk.query[4, int(place)] * walk.key[walk.column, int(place)])
    assert product[-1] == number(walk.products[4, walk.column]) and len(header) == 6


def test_a_row_of_the_softmax_is_spelt_out(walk):
    header, scores, exponentials, shares = softmax_table(walk)
    places = [int(re.search(r"\((\d)\)", cell)[1]) for cell in header[1:-1]]
    assert sorted(places) == [0, 1, 2, 3, 4]
    assert scores[1:-1] == [number(walk.scores[4, place]) for place in places]
    assert shares[1:-1] == [number(walk.weights[4, place]) for place in places] and exponentials[1] == "1.00"


def test_the_sentences_hold_the_numbers(walk):
    texts = [step.text for step in steps(walk)]
    assert f"= {number(walk.scores[4, walk.column])}" in texts[3]
    assert f"= {number(walk.weights[4, walk.column])}" in texts[5]
    assert texts[6].endswith(f"= {number(walk.mixed[4, 0])}.")
    assert f"= {number(walk.stream[4, 0] + walk.added[4, 0])}" in texts[7] and "other 3 heads" in texts[7]
    assert "2 heads share" in texts[2] and "RoPE" in texts[2]


def test_the_page_in_markdown(walk):
    page = as_page(walk, ["one.png", "two.png"])
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `c` | ")]
    for row, values in zip(rows, (walk.scores, walk.weights), strict=True):
        assert [cell.strip(" |") for cell in row[1:]] == [number(value) for value in values[4]]
    for table in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert page.count("![Page") == 2 and "(one.png)" in page


@pytest.mark.parametrize(
    ("value", "text"), [(1.234, "1.23"), (-0.5, "−0.50"), (0.0123, "0.012"), (0.00001, "0"), (0.0, "0"), (-3e-7, "0")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_the_largest_terms_and_the_rest():
    terms = largest_terms(np.array([1.0, -5.0, 3.0, 0.5]), 2)
    assert (terms.places, terms.rest, terms.others, terms.total) == ([1, 2], 1.5, 2, -0.5)


@pytest.mark.parametrize(("token", "label"), [(" a\n", "·a↵"), ("x" * 20, "x" * 11 + "…"), ("\t", "→")])
def test_tokens_as_labels(token, label):
    assert visible(token) == label
