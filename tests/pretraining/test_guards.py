"""Bad numbers in a run are found, recorded, and survived if the recipe says so."""

import json
import math
import random

import pytest
import torch
from tiny_stages import flags, forget_accelerate, write_data, write_tokenizer

from training.commands import pretrain
from training.common.errors import UserError
from training.pretraining.guards import LossSpikes, check_initial_loss
from training.pretraining.loop import Pretrainer


def test_a_spike_stands_out_and_a_noisy_fall_does_not():
    generator, spikes = random.Random(0), LossSpikes()
    falling = [8 * math.exp(-step / 80) + 2 + generator.gauss(0, 0.05) for step in range(300)]
    assert not any(spikes.record(loss) for loss in falling)
    usual = spikes.record(falling[-1] + 1.0)
    assert usual == pytest.approx(falling[-1], abs=0.3)
    assert spikes.record(falling[-1]) is None  # the spike has not moved what is usual


def test_chance_is_a_uniform_guess():
    assert check_initial_loss(math.log(300) * 1.05, 300) is None
    assert "guessing among 300 tokens gives 5.70" in check_initial_loss(9.0, 300)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = write_tokenizer(folder / "tokenizer")
    return {"tokenizer": str(tokenizer), "data": str(write_data(folder / "data", tokenizer))}


def train(inputs, output_dir, **options):
    forget_accelerate()
    sizes = {"model.hidden_size": 32, "model.num_hidden_layers": 1, "model.num_attention_heads": 2, "max_steps": 5}
    sizes |= {"sequence_length": 16, "global_batch_size": 4, "per_device_train_batch_size": 2, "bf16": "false"}
    pretrain.main(flags({**inputs, **sizes, "output_dir": output_dir, "logging_steps": 1, **options}))


def incidents(folder):
    return [json.loads(line) for line in (folder / "incidents.jsonl").read_text().splitlines()]


@pytest.fixture
def broken_step(monkeypatch):
    """The second half of the third batch gives a NaN loss."""
    calls = []

    def loss(self, *args, **kwargs):
        value = honest(self, *args, **kwargs)
        if torch.is_grad_enabled():
            calls.append(value)
        return value * math.nan if len(calls) == 6 and torch.is_grad_enabled() else value

    honest = Pretrainer.compute_loss
    monkeypatch.setattr(Pretrainer, "compute_loss", loss)


def test_a_loss_that_is_no_number_stops_the_run(inputs, tmp_path, broken_step):
    with pytest.raises(
        UserError, match="step 3 has a loss of nan and a gradient norm of nan; lower the learning rates"
    ):
        train(inputs, tmp_path / "model")
    [incident] = incidents(tmp_path / "model.partial")
    assert incident["step"] == 3 and incident["incident"] == "not finite"
    assert incident["documents"] and incident["loss"] is None and incident["grad_norm"] is None  # JSON has no nan


def test_or_its_batch_is_skipped_and_nothing_of_it_stays(inputs, tmp_path, broken_step):
    train(inputs, tmp_path / "model", on_nonfinite="skip")
    records = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 4, 5]
    assert all(math.isfinite(record["loss"]) for record in records if "loss" in record)
    assert [incident["step"] for incident in incidents(tmp_path / "model")] == [3]


def test_but_not_for_ever(inputs, tmp_path, monkeypatch):
    honest = Pretrainer.compute_loss
    monkeypatch.setattr(Pretrainer, "compute_loss", lambda *args, **kwargs: honest(*args, **kwargs) * math.nan)
    with pytest.raises(UserError, match="step 10 has a loss of nan .* like the 9 steps before it"):
        train(inputs, tmp_path / "model", on_nonfinite="skip", max_steps=12)


def test_weights_that_start_too_large_are_worse_than_chance(inputs, tmp_path, capsys):
    train(inputs, tmp_path / "model", **{"model.initializer_range": 0.9, "max_steps": 1})
    assert "before the first step the validation loss is" in capsys.readouterr().out
    assert incidents(tmp_path / "model")[0]["incident"] == "worse than chance"


def test_a_usual_run_has_no_incidents(inputs, tmp_path):
    train(inputs, tmp_path / "model")
    assert incidents(tmp_path / "model") == []
