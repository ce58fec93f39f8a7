"""The log of a run: records, lines without a terminal, and trackers."""

import importlib.util
import json
import math
import shutil

import pytest
from provenance import unfinish
from tiny_stages import flags, forget_accelerate, write_data, write_tokenizer

from training.commands import pretrain
from training.common.errors import UserError
from training.common.metrics import read_metrics

SIZES = {"model.hidden_size": 32, "model.num_hidden_layers": 1, "model.num_attention_heads": 2, "bf16": "false"}
SIZES |= {"sequence_length": 16, "global_batch_size": 4, "per_device_train_batch_size": 2, "eval_sequences": 2}
STEPS = {"max_steps": 6, "logging_steps": 2, "eval_steps": 3, "save_steps": 3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = write_tokenizer(folder / "tokenizer")
    return {"tokenizer": str(tokenizer), "data": str(write_data(folder / "data", tokenizer))}


def train(inputs, output_dir, **options) -> list[dict]:
    forget_accelerate()
    pretrain.main(flags({**inputs, **SIZES, **STEPS, "output_dir": output_dir, **options}))
    return read_metrics(output_dir / "metrics.jsonl")


def test_records_say_how_well_and_how_fast(inputs, tmp_path, capsys):
    records = train(inputs, tmp_path / "model")
    training = [record for record in records if "loss" in record]
    validation = [record for record in records if "validation_loss" in record]
    assert [record["step"] for record in training] == [2, 4, 6]
    assert [record["step"] for record in validation] == [3, 6]
    splits = json.loads(open(f"{inputs['data']}/manifest.json").read())["splits"]
    for split, lines, prefix in (("train", training, ""), ("validation", validation, "validation_")):
        tokens_per_byte = splits[split]["tokens"] / splits[split]["bytes"]
        for record in lines:
            bits = record[f"{prefix}loss"] / math.log(2) * tokens_per_byte
            assert record[f"{prefix}bits_per_byte"] == pytest.approx(bits)
    for record in training:
        assert record["grad_norm"] > 0 and record["tokens_per_second"] > 0 and 0 < record["mfu"] < 1
        assert record["learning_rate"] > 0
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds) and seconds[0] > 0
    # Without a terminal there is no progress bar: a line at every logging step.
    printed = capsys.readouterr().out
    assert "step 2/6: loss 5." in printed and "step 6/6: loss " in printed and "0:00 left" in printed
    assert "batches of 4 sequences, 2 at once in each process (2 accumulation steps)" in printed
    assert " bits/byte, lr " in printed and " tokens/s, MFU " in printed and "GFLOP/s, the reference of MFU" in printed


def test_tensorboard_and_the_clock_go_on_after_an_interruption(inputs, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = train(inputs, tmp_path / "model", report_to="[tensorboard]")
    (tmp_path / "model").rename(tmp_path / "model.partial")
    unfinish(tmp_path / "model.partial")
    checkpoints = tmp_path / "model.partial" / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000006")
    reached = json.loads((checkpoints / "step-00000003" / "complete.json").read_text())["progress"]["seconds"]
    after = train(inputs, tmp_path / "model", report_to="[tensorboard]")
    assert [record["step"] for record in after] == [record["step"] for record in before] == [2, 3, 4, 6, 6]
    assert after[:2] == before[:2] and all(record["seconds"] > reached for record in after[2:])

    folder = tmp_path / "model" / "trackers" / "scratch"
    events = EventAccumulator(str(folder)).Reload()
    for name in ("loss", "bits_per_byte", "grad_norm", "mfu", "validation_loss"):
        expected = [(record["step"], pytest.approx(record[name])) for record in after if name in record]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected, name
    recipe = next(folder.rglob("hparams.yml")).read_text()
    assert "optimizer.learning_rate: 0.02" in recipe and "model.hidden_size: 32" in recipe

    capsys.readouterr()
    train(inputs, tmp_path / "model", profile="true")  # neither trackers nor a profile make it another run
    assert "is up to date, skipped" in capsys.readouterr().out


def test_trackio_gets_the_same_records(inputs, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    for module in (utils, sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    records = train(inputs, tmp_path / "model", report_to="[trackio]")
    found = sqlite_storage.SQLiteStorage.get_logs("scratch", str(tmp_path / "model"))
    for name in ("loss", "validation_loss"):
        expected = {record["step"]: record[name] for record in records if name in record}
        assert {line["step"]: line[name] for line in found if name in line} == pytest.approx(expected)


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(inputs, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trackio" else find_spec(name))
    with pytest.raises(UserError, match="'report_to': trackio is not installed; pip install -e .*track"):
        train(inputs, tmp_path / "model", report_to="[trackio]")
    with pytest.raises(UserError, match="'report_to' must be one of tensorboard, trackio, wandb, not 'excel'"):
        train(inputs, tmp_path / "model", report_to="[excel]")
    assert not list(tmp_path.iterdir())
