"""Captures in training: they change nothing, resume exactly, and can be made from checkpoints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from messages import refused
from provenance import unfinish
from safetensors.torch import load_file
from timings import TIMINGS
from tiny_stages import MODEL, flags, forget_accelerate, write_data, write_tokenizer

from training.commands import pretrain
from training.insight.config import InsightConfig
from training.insight.record import HEADS, INSIGHT, MAPS, STEPS, Record
from training.insight.recording import record_from_checkpoints

OPTIONS = {
    **{f"model.{key}": value for key, value in MODEL.items()},
    "preset": "qwen3",
    "model.hidden_dropout": 0.1,  # so that a random draw that differs would show
    "bf16": "false",
    "max_steps": 5,
    "sequence_length": 32,
    "global_batch_size": 2,
    "logging_steps": 1,
    "eval_steps": 2,
    "eval_sequences": 2,
    "save_steps": 2,
    "keep_last": 9,
}
CAPTURED = {"insight.enabled": "true", "insight.tokens": 16, "insight.texts": "[the cat sat on the cat]"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("inputs")
    tokenizer = write_tokenizer(place / "tokenizer")
    return {"data": write_data(place / "data", tokenizer), "tokenizer": tokenizer}


def train(inputs, output_dir: Path, **options) -> Path:
    forget_accelerate()
    pretrain.main(flags({**OPTIONS, **inputs, "output_dir": output_dir, **options}))
    return output_dir


@pytest.fixture(scope="module")
def captured(inputs, tmp_path_factory) -> Path:
    return train(inputs, tmp_path_factory.mktemp("captured") / "model", **CAPTURED)


def record_of(run: Path) -> dict[str, bytes]:
    """The files of a record."""
    folder = run / INSIGHT
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_capture_changes_nothing(inputs, captured, tmp_path, capsys):
    plain = train(inputs, tmp_path / "plain")
    assert not (plain / INSIGHT).exists() and "insight" not in capsys.readouterr().out
    one, other = load_file(captured / "model.safetensors"), load_file(plain / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    logs = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (captured, plain)
    ]
    one, other = ([{key: record[key] for key in record.keys() - TIMINGS} for record in log] for log in logs)
    assert one == other
    config = [json.loads((run / "config.json").read_text()) for run in (captured, plain)]
    assert config[0] == config[1]


def test_a_run_has_its_captures(captured):
    record = Record.open(captured / INSIGHT)
    assert [scores.step for scores in record.steps] == [0, 1, 2, 3, 4, 5] == InsightConfig().steps(5)
    assert [scores.tokens for scores in record.steps] == [64 * step for step in range(6)]
    assert [probe.name for probe in record.probes] == ["repeated", "held out 1", "held out 2", "text 1"]
    assert len(record.head_scores) == 6 * 2 * 2 * 2
    assert len(list((captured / INSIGHT / MAPS).iterdir())) == 6


@pytest.mark.parametrize("killed", [3, 5])
def test_a_killed_run_has_the_same_captures(inputs, captured, tmp_path, killed):
    """Killed after some captures beyond its last checkpoint, while one was being written."""
    shutil.copytree(captured, tmp_path / "model.partial")
    unfinish(tmp_path / "model.partial")
    work = tmp_path / "model.partial"
    for step in (4, 5):
        shutil.rmtree(work / "checkpoints" / f"step-{step:08d}")
    record = work / INSIGHT
    kept = [line for line in (record / STEPS).read_text().splitlines(True) if json.loads(line)["step"] < killed]
    (record / STEPS).write_text("".join(kept))
    with (record / HEADS).open("a") as stream:
        stream.write('{"step": 3, "tokens": ')
    assert record_of(train(inputs, tmp_path / "model", **CAPTURED)) == record_of(captured)
