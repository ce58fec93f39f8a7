"""Threads that come and go during a pretraining: the same weights to the last bit, and a record of each change."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_stages import MODEL, flags, forget_accelerate, write_data, write_tokenizer

from training.cli import main
from training.pretraining import thread_log

OPTIONS = {
    **{f"model.{key}": value for key, value in MODEL.items()},
    "data": "data",
    "tokenizer": "tokenizer",
    "bf16": "false",
    "max_steps": 6,
    "sequence_length": 64,
    "global_batch_size": 64,
    "per_device_train_batch_size": 32,
    "logging_steps": 1,
    "eval_steps": 6,
    "eval_sequences": 2,
    "save_steps": 2,
}

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    write_data(tmp_path / "data", write_tokenizer(tmp_path / "tokenizer"))
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pretrain(output_dir: str) -> dict[str, torch.Tensor]:
    forget_accelerate()
    assert main(["pretrain", *flags(OPTIONS | {"output_dir": output_dir})]) == 0
    return load_file(Path(output_dir) / "model.safetensors")


def change_threads(monkeypatch, numbers: list[int]) -> None:
    """Let the load ask for these numbers of threads, one at every look."""
    remaining = iter(numbers)

    def follow_load() -> str:
        torch.set_num_threads(next(remaining))
        return f"{torch.get_num_threads()} threads"

    monkeypatch.setattr(thread_log, "follow_load", follow_load)


def records(output_dir: str) -> list[dict]:
    lines = (Path(output_dir) / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "threads" in record]


def test_changes_are_recorded_and_change_no_bit(inputs, monkeypatch, capfd):
    torch.set_num_threads(1)
    monkeypatch.setattr(thread_log, "follow_load", lambda: None)
    expected = pretrain("fixed")
    assert not records("fixed")
    change_threads(monkeypatch, [2, 2, 1, 2, 1, 1, 2])  # at the start, and before each of the steps
    found = pretrain("following")
    changes = records("following")
    assert [(record["step"], record["threads"]) for record in changes[1:]] == [
        *((0, 2), (1, 1), (2, 2), (3, 1), (4, 1), (5, 2))
    ]
    assert "pretrain: 1 threads" in capfd.readouterr().out
    assert {record["same_bits"] for record in changes} == {True}
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


def test_other_bits_are_told(inputs, monkeypatch, capfd):
    """Where they depend on the number of threads, the person learns how to fix it."""
    torch.set_num_threads(2)
    monkeypatch.setattr(thread_log, "same_bits", lambda checksums: False)
    change_threads(monkeypatch, [2] * 7)
    pretrain("following")
    assert records("following")[0]["same_bits"] is False
    assert "OMP_NUM_THREADS=1" in capfd.readouterr().out
