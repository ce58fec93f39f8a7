"""The steps that two runs have in common, which differ in their number of steps alone."""

import pytest

from training.common.recipe import build
from training.optim.schedule import learning_rate_factor
from training.pretraining.config import PretrainConfig
from training.pretraining.continuation import common_steps


def recipe(max_steps: int, curriculum: dict | None = None, **optimizer: object) -> PretrainConfig:
    values = {"output_dir": "o", "tokenizer": "t", "data": "d", "max_steps": max_steps, "optimizer": optimizer}
    return build(PretrainConfig, values | {"curriculum": curriculum or {}}, "test")


@pytest.mark.parametrize(
    "optimizer, common",
    [
        ({"decay_fraction": 0.4}, 61),  # the rates of step 60, counted from 0, are still the peak
        ({"decay_fraction": 0.0}, 100),
        ({"decay_fraction": 1.0, "warmup_steps": 10}, 10),
        ({"schedule": "cosine", "warmup_steps": 10}, 11),
        ({"schedule": "cosine", "final_fraction": 1.0}, 100),
    ],
)
def test_rates_in_common(optimizer, common):
    config = recipe(250, **optimizer)
    assert common_steps(config, 100) == common
    keys = config.optimizer
    for step in range(common):
        shape = keys.schedule, keys.warmup_steps, keys.decay_fraction, keys.final_fraction
        assert learning_rate_factor(step, 100, *shape) == learning_rate_factor(step, 250, *shape)
    assert common_steps(recipe(100, **optimizer), 100) == 100  # the same run, made again


def test_a_curriculum_has_its_first_phase_in_common():
    phases = {0.2: {"d": 1, "e": 1}, 0.9: "e"}
    assert common_steps(recipe(250, phases, decay_fraction=0.1), 100) == 20
    assert common_steps(recipe(100, phases), 100) == 100
