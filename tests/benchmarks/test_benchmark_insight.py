"""The benchmark of captures runs, and its last line is the JSON that it promises."""

import json
import sys

import pytest
from tiny_stages import forget_accelerate

from benchmarks import insight

RECIPE = """
output_dir: x
data: x
tokenizer: x
preset: llama
model: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
sequence_length: 32
global_batch_size: 2
max_steps: 20
insight: {tokens: 16}
"""


def test_cost_of_captures(tmp_path, monkeypatch, capsys):
    forget_accelerate()
    (tmp_path / "pretrain.yaml").write_text(RECIPE)
    arguments = ["--recipe", str(tmp_path / "pretrain.yaml"), "--vocab-size=280", "--rounds=2", "--steps=1"]
    monkeypatch.setattr(sys, "argv", ["insight", *arguments])
    insight.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "insight" and result["steps"] == 20 and result["captures"] == 12
    spent = {"captures": 12 * result["capture_ms"], "steps": 20 * result["step_ms"]}
    assert result["share"] == pytest.approx(spent["captures"] / sum(spent.values()), rel=0.01)
    assert 0 < result["record_mb"] < 1
