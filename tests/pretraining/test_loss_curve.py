"""The loss curve of a small pretraining, step by step, against the recorded one.

After a change that moves it on purpose, record it again:
    REWRITE_LOSSES=1 python -m pytest tests/pretraining/test_loss_curve.py
"""

import json
import os
from pathlib import Path

import pytest
import torch
from tiny_stages import flags, forget_accelerate, write_data, write_tokenizer

from training.commands import pretrain
from training.optim import optimizer

FOLDER = Path(__file__).parent / "losses"
STEPS = 50
# Processors round differently, and fifty steps magnify it. A wrong learning rate, order or gradient shows at once.
TOLERANCE = 2e-3


@pytest.mark.parametrize("preset", ["scratch", "qwen3"])
def test_the_curve_is_the_one_on_file(tmp_path, monkeypatch, preset):
    monkeypatch.setattr(optimizer, "has_bf16", lambda device: False)  # Muon's products in fp32 on every processor
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    options = {
        "output_dir": tmp_path / "model",
        "tokenizer": tokenizer,
        "data": write_data(tmp_path / "data", tokenizer),
        "preset": preset,
        "model.hidden_size": 32,
        "model.num_hidden_layers": 2,
        "model.num_attention_heads": 2,
        "model.hidden_dropout": 0.1,
        "sequence_length": 32,
        "global_batch_size": 8,
        "per_device_train_batch_size": 4,
        "max_steps": STEPS,
        "optimizer.warmup_steps": 5,
        "logging_steps": 1,
        "bf16": "false",
    }
    forget_accelerate()
    pretrain.main(flags(options))
    records = map(json.loads, (tmp_path / "model" / "metrics.jsonl").read_text().splitlines())
    losses = [record["loss"] for record in records if "loss" in record]
    file = FOLDER / f"{preset}.txt"
    if "REWRITE_LOSSES" in os.environ:
        file.write_text("".join(f"{loss:.6f}\n" for loss in losses))
    expected = [float(line) for line in file.read_text().splitlines()]
    assert len(expected) == STEPS and expected[-1] < expected[0] - 2
    torch.testing.assert_close(losses, expected, atol=TOLERANCE, rtol=0)
