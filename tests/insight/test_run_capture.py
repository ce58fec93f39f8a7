"""Captures in training: they change nothing, resume exactly, and can be made from checkpoints."""

import json
import shutil
from dataclasses import replace
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
from training.insight.recording import record_from_checkpoints, record_from_model
from training.pretraining import loop

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


def test_a_killed_run_has_the_same_captures(inputs, captured, tmp_path):
    """Killed after some captures beyond its last checkpoint, while one was being written; test_kill.py kills runs."""
    shutil.copytree(captured, tmp_path / "model.partial")
    unfinish(tmp_path / "model.partial")
    work = tmp_path / "model.partial"
    for step in (4, 5):
        shutil.rmtree(work / "checkpoints" / f"step-{step:08d}")
    record = work / INSIGHT
    kept = [line for line in (record / STEPS).read_text().splitlines(True) if json.loads(line)["step"] < 4]
    (record / STEPS).write_text("".join(kept))
    with (record / HEADS).open("a") as stream:
        stream.write('{"step": 4, "tokens": ')
    assert record_of(train(inputs, tmp_path / "model", **CAPTURED)) == record_of(captured)


def test_more_steps_keep_the_captures_in_common(inputs, captured, tmp_path):
    """The longer run ends with the captures that it would have had from the start."""
    shutil.copytree(captured, tmp_path / "model")
    longer = train(inputs, tmp_path / "model", max_steps=8, **CAPTURED)
    whole = train(inputs, tmp_path / "whole", max_steps=8, **CAPTURED)
    assert record_of(longer) == record_of(whole)
    assert [scores.step for scores in Record.open(longer / INSIGHT).steps] == [0, 1, 2, 3, 4, 5, 6, 8]
    shutil.copytree(captured, tmp_path / "off")
    assert not (train(inputs, tmp_path / "off", max_steps=8) / INSIGHT).exists()


def test_other_keys_of_insight_resume(inputs, captured, tmp_path, capsys):
    """They change nothing that is learned. A record with other probes or heads begins where the run resumes."""
    shutil.copytree(captured, tmp_path / "model.partial")
    unfinish(tmp_path / "model.partial")
    shutil.rmtree(tmp_path / "model.partial/checkpoints/step-00000005")
    resumed = train(inputs, tmp_path / "model", **CAPTURED | {"insight.heads": "[0.1]"})
    said = capsys.readouterr().out
    assert "resuming from step 4" in said and "the record begins at step 4" in said and "have changed" in said
    assert [scores.step for scores in Record.open(resumed / INSIGHT).steps] == [4, 5]
    assert (resumed / "model.safetensors").read_bytes() == (captured / "model.safetensors").read_bytes()


def test_checkpoints_give_the_captures_that_training_gave(captured, tmp_path):
    """The run has dropout, and training was not in evaluation mode; the maps are those of the model as it was."""
    config = InsightConfig(tokens=16, texts=["the cat sat on the cat"])
    record = record_from_checkpoints(captured, tmp_path / INSIGHT, config)
    assert [scores.step for scores in record.steps] == [2, 4, 5]
    trained = Record.open(captured / INSIGHT)
    assert record.head_scores == [scores for scores in trained.head_scores if scores.step in (2, 4, 5)]
    assert record.steps == [scores for scores in trained.steps if scores.step in (2, 4, 5)]
    for step in (2, 4, 5):
        for kind in ("attention", "query", "key", "value"):
            pairs = zip(getattr(record.snapshot(step), kind), getattr(trained.snapshot(step), kind), strict=True)
            assert all(np.array_equal(one, other) for one, other in pairs)


def test_one_model_is_one_moment(captured, tmp_path):
    """Held-out text comes from a run; without one, only the repeated sequences are measured."""
    config = InsightConfig(tokens=16, texts=["the cat sat on the cat"])
    record = record_from_model(captured, tmp_path / INSIGHT, config, run=captured)
    trained = Record.open(captured / INSIGHT)
    assert record.head_scores == [replace(scores, step=0, tokens=0) for scores in trained.head_scores[-8:]]
    alone = record_from_model(captured, tmp_path / "alone", config)
    assert [probe.kind for probe in alone.probes] == ["repeated", "text"] and np.isnan(alone.steps[0].loss)
    assert {scores.probe for scores in alone.head_scores} == {"repeated"} and alone.bytes_per_token is None


@pytest.mark.parametrize(
    "options, key, facts",
    [
        ({"insight.tokens": 33}, "insight.tokens", (33, 32)),
        ({"insight.heads": "[2.0]"}, "insight.heads", ("2.0", "0.0 to 1.1")),
        ({"insight.texts": [["the"] * 40]}, "insight.texts", ("the", 32)),
        ({"insight.texts": "['']"}, "insight.texts", ("0 tokens", 32)),
        ({"insight.probes": 3}, "insight.probes", ("unknown",)),
    ],
    ids=["tokens", "heads", "long", "empty", "unknown"],
)
def test_bad_keys_leave_no_trace(inputs, tmp_path, options, key, facts):
    options = {name: f"[{' '.join(value[0])}]" if isinstance(value, list) else value for name, value in options.items()}
    with refused(key, *facts):
        train(inputs, tmp_path / "model", **CAPTURED | options)
    assert not list(tmp_path.iterdir())


def test_no_checkpoints(inputs, captured, tmp_path):
    with refused(None, inputs["data"], "scratch pretrain"):
        record_from_checkpoints(inputs["data"], tmp_path / INSIGHT, InsightConfig())
    shutil.copytree(captured, tmp_path / "model", ignore=shutil.ignore_patterns("step-*"))
    with refused(None, tmp_path / "model", "no checkpoint", "insight.enabled"):
        record_from_checkpoints(tmp_path / "model", tmp_path / INSIGHT, InsightConfig())
    assert not (tmp_path / INSIGHT).exists()


def test_a_sharded_model_is_not_captured(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "is_sharded", lambda accelerator: True)
    run = train(inputs, tmp_path / "model", max_steps=1, **CAPTURED)
    assert "record its checkpoints afterwards" in capsys.readouterr().out and not (run / INSIGHT).exists()
