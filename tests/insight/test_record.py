"""The record of attention: what is written is read, and what cannot be read is one line."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from insight import CAPTURED, write_record
from messages import refused

from training.insight.config import InsightConfig
from training.insight.record import (
    HEADS,
    MAPS,
    PROBES,
    STEPS,
    Layout,
    Record,
    RecordWriter,
    as_stored,
    map_file,
    probability,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_record(tmp_path_factory.mktemp("run") / "insight").folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    shutil.copytree(written, tmp_path / "insight")
    return tmp_path / "insight"


def layout_of(record: Record) -> Layout:
    return Layout(**{name: value for name, value in vars(record).items() if name in Layout.__dataclass_fields__})


def test_what_is_written_is_read(folder):
    record = Record.open(folder)
    assert tuple(scores.step for scores in record.steps) == CAPTURED and len(record.head_scores) == 4 * 2 * 2 * 2
    snapshot = record.snapshot(64)
    assert snapshot.attention[1].shape == (2, 2, 24, 24) and snapshot.query[0].shape == (2, 24, 8)
    assert probability(snapshot.attention[0])[1, 0, 20, 9] == pytest.approx(1)


def test_stored_probabilities_are_as_fine_as_eight_bits_allow():
    exact = np.linspace(0, 1, 10_001)
    error = np.abs(probability(as_stored(exact)) - exact)
    assert error.max() < 1 / 255 and error[:100].max() < 1e-3


def test_figures_that_are_not_finite_are_nan(folder):
    lines = [json.loads(line) for line in (folder / STEPS).read_text().splitlines()]
    (folder / STEPS).write_text("".join(json.dumps(line | {"loss": None}) + "\n" for line in lines))
    assert all(np.isnan(scores.loss) for scores in Record.open(folder).steps)


def test_a_step_counts_once_its_line_is_whole(folder):
    lines = (folder / STEPS).read_text().splitlines(True)
    (folder / STEPS).write_text("".join(lines[:-1]) + lines[-1][:40])
    record = Record.open(folder)
    assert [scores.step for scores in record.steps] == [0, 1, 8] == sorted({found.step for found in record.head_scores})


def test_a_run_that_resumes_keeps_the_steps_before(folder):
    writer = RecordWriter(folder, layout_of(Record.open(folder)), step=8)
    assert [scores.step for scores in Record.open(folder).steps] == [0, 1, 8] and not writer.empty
    assert sorted(path.stem for path in (folder / MAPS).iterdir()) == ["00000000", "00000001", "00000008"]


def test_another_layout_begins_a_new_record(folder):
    layout = replace(layout_of(Record.open(folder)), vectors=[(0, 1)])
    writer = RecordWriter(folder, layout, step=8)
    assert writer.empty and writer.forgot and not list((folder / MAPS).iterdir())
    with refused(None, folder, "no step is captured yet"):
        Record.open(folder)


def test_no_record(tmp_path):
    with refused(None, tmp_path, "insight.enabled", "checkpoints"):
        Record.open(tmp_path)


DAMAGE = {
    "half": (PROBES, lambda text: text[: len(text) // 2]),
    "version": (PROBES, lambda text: text.replace('"version": 1', '"version": 2')),
    "vectors": (PROBES, lambda text: text.replace("[[0, 0], [1, 0]]", "[[0, 0], [7, 0]]")),
    "tokens": (PROBES, lambda text: text.replace('"tokens": [', '"tokens": ["one more", ')),
    "no number": (STEPS, lambda text: text.replace('"loss": 5.0', '"loss": "low"')),
    "no such head": (HEADS, lambda text: text.replace('"head": 1', '"head": 9')),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage(folder, kind):
    name, damage = DAMAGE[kind]
    before = (folder / name).read_text()
    (folder / name).write_text(damage(before))
    assert (folder / name).read_text() != before
    with refused(None, folder / name, "capture again"):
        Record.open(folder)


def test_damaged_maps(folder):
    record = Record.open(folder)
    with refused("step", 5, "captured: 0, 1, 8, 64"):
        record.snapshot(5)
    content = map_file(folder, 8).read_bytes()
    map_file(folder, 8).write_bytes(content[: len(content) // 2])
    with refused(None, map_file(folder, 8), "damaged"):
        record.snapshot(8)
    map_file(folder, 8).unlink()
    os.mkfifo(map_file(folder, 8))  # which the reader would wait for
    with refused("step", 8):
        record.snapshot(8)
    with refused(None, map_file(folder, 64), "shapes"):
        replace(record, head_dim=4).snapshot(64)
    layers = f'"layers": {record.layers}'
    (folder / PROBES).write_text((folder / PROBES).read_text().replace(layers, f'"layers": {2**31}'))
    with refused(None, map_file(folder, 64), "shapes"):
        Record.open(folder).snapshot(64)


def test_steps_are_log_spaced_and_do_not_depend_on_the_length_of_the_run():
    steps = InsightConfig().steps(550)
    assert steps[:9] == [0, 1, 2, 3, 4, 5, 6, 8, 10] and steps[-3:] == [406, 512, 550] and len(steps) == 27
    longer = InsightConfig().steps(1000)
    assert [step for step in longer if step < 550] == steps[:-1] and longer[-1] == 1000
    assert InsightConfig(captures_per_doubling=1).steps(16) == [0, 1, 2, 4, 8, 16]
    assert InsightConfig().steps(1) == [0, 1]


def test_heads_are_written_as_layer_and_head():
    assert InsightConfig(heads=["0.1", "3.10"]).vectors(4) == [(0, 1), (3, 10)]
    assert InsightConfig().vectors(4) == [(2, 0)]
    with pytest.raises(ValueError, match=r"'insight.heads': '1-3' .* 1\.3"):
        InsightConfig(heads=["1-3"])
