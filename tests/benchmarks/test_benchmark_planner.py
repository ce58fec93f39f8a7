"""The benchmark of the planner measures what it says: counts that are known, and the memory of known tensors."""

import pytest
import torch

from benchmarks import planner
from benchmarks.peak_memory import peak_bytes
from training.planner.facts.devices import read_market
from training.planner.layout import Layout

CPU = torch.device("cpu")
TINY = planner.case("qwen3", 64, 2, 512, 32, 2, optimizer="adamw")


def test_cases_cover_what_changes_the_memory():
    names = [variant.name for variant in planner.CASES]
    assert len(set(names)) == len(names) >= 24
    presets = {(case.preset, case.shape.checkpointing, case.shape.optimizer) for case in planner.CASES}
    assert len(presets) == 16
    sizes = {(case.shape.micro_batch, case.shape.sequence_length, case.config.vocab_size) for case in planner.CASES}
    assert all(len(set(column)) >= 4 for column in zip(*sizes, strict=True))


def test_peak_of_known_tensors():
    def work():
        first = torch.zeros(100_000)
        second = first + 1  # 800,000 bytes live
        del first
        return second + 1

    assert peak_bytes(work, CPU) == pytest.approx(800_000, abs=100)  # numbers become tensors too


def test_parameters_and_flops():
    assert all(row["equal"] for row in planner.check_parameters())
    (row,) = planner.check_flops([TINY])
    assert row["error"] == pytest.approx(0, abs=0.01) and row["counted"] > 0


def test_a_step_trains(monkeypatch):
    built, build_optimizer = [], planner.build_optimizer

    def noting(model, config):
        built.append(model)
        return build_optimizer(model, config)

    monkeypatch.setattr(planner, "build_optimizer", noting)
    step = planner.build_step(TINY, CPU)
    (model,) = built
    before = model.lm_head.weight.clone()
    step()
    assert not torch.equal(before, model.lm_head.weight)
    assert all(weight.grad is None for weight in model.parameters())


def test_predicted_memory_is_near_the_tensors():
    measured = peak_bytes(lambda: planner.two_steps(TINY, CPU), CPU)
    row = planner.memory_row(TINY, Layout(read_market().find("CPU")), measured)
    assert row["tensors (MB)"] == measured / 1e6 and abs(row["error"]) < 0.25
