"""Predictions beside a run: the table of predicted against measured, and runs without them."""

import json

import pytest
from messages import refused

from training.planner.recipes.predictions import PLAN, compare

PREDICTED = {
    "layout": "2 x H100 SXM, ddp",
    "devices": 2,
    "steps": 100,
    "tokens_per_step": 1000,
    "step_seconds": [0.5, 1.0, 2.0],
    "memory_bytes": [2**30, 2 * 2**30, 3 * 2**30],
    "dollars_per_device_hour": 3.6,
}


@pytest.fixture
def run(tmp_path):
    """A run that is still training: 50 of 100 steps, 800 tokens per second."""
    folder = tmp_path / "run" / "pretrain.partial"
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text(json.dumps(provenance({})))
    record = {"step": 50, "tokens": 50_000, "seconds": 62.5, "loss": 3.0, "tokens_per_second": 800}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    (folder / PLAN).write_text(json.dumps(PREDICTED))
    return tmp_path / "run"


def provenance(metrics: dict) -> dict:
    record = {"stage": "pretrain", "fingerprint": "", "recipe": {}, "inputs": {}, "versions": {}, "command": ""}
    return record | {"seconds": 70.0, "metrics": metrics}


def rows(run) -> dict[str, list[str]]:
    header, *table = compare(run)
    assert header[1:] == ["low", "expected", "high", "measured", "difference"]
    return {name: cells for name, *cells in table}


def test_a_run_that_is_still_training(run):
    table = rows(run)
    assert table["seconds per step"] == ["500 ms", "1.00 s", "2.00 s", "1.25 s", "+25%"]
    assert table["tokens per second"][3:] == ["800", "-20%"]
    assert table["peak memory"][3:] == ["not yet", ""]
    assert table["tokens of 50 steps"][1:] == ["50.0k", "50.0k", "50.0k", "+0%"]
    assert table["time of 50 steps"][3] == "62.5 s"
    assert table["cost of 50 steps"] == ["$0.05", "$0.10", "$0.20", "$0.12", "+25%"]


def test_a_measured_value_outside_of_the_bounds_is_marked(run):
    finished = run / "pretrain"
    (run / "pretrain.partial").rename(finished)
    (finished / "provenance.json").write_text(json.dumps(provenance({"peak_memory_bytes": 4 * 2**30})))
    assert rows(run)["peak memory"] == ["1.00 GiB", "2.00 GiB", "3.00 GiB", "4.00 GiB", "+100% *"]
    assert rows(finished) == rows(run)


def test_runs_that_cannot_be_compared(run, tmp_path):
    folder = run / "pretrain.partial"
    with refused("check", tmp_path / "none"):
        compare(tmp_path / "none")
    (folder / PLAN).write_text(json.dumps(PREDICTED | {"step_seconds": [1.0]}))
    with refused("check", folder / PLAN, "damaged"):
        compare(run)
    (folder / PLAN).unlink()
    with refused("check", folder / PLAN, "scratch plan --output_dir"):
        compare(run)
    (folder / PLAN).write_text(json.dumps(PREDICTED))
    (folder / "metrics.jsonl").write_text("")
    with refused("check", folder, "no step"):
        compare(run)
