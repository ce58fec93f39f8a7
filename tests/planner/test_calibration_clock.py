"""A calibration measures by the clock that it is given."""

from itertools import count

import pytest
from planned import SIZES

from modeling_scratch import ScratchConfig
from training.planner.architecture import Architecture
from training.planner.calibration import calibrate
from training.planner.layout import Shape
from training.planner.speed import operations


def test_rates_are_by_the_clock():
    architecture = Architecture.from_config(ScratchConfig.from_preset("qwen3", **SIZES), "qwen3")
    shape = Shape(sequence_length=8, micro_batch=2, global_batch=2, bf16=False, optimizer="adamw")
    ticks = count()
    calibration = calibrate(architecture, shape, budget=0.01, clock=lambda: 100.0 * next(ticks))
    # Each run takes 100 seconds, with one layer as with three: the least that a layer may be is a twentieth of it.
    layer_work, ends_work = operations(architecture, shape)
    assert calibration.layer_rate == pytest.approx(16 * layer_work / 3 / 5)
    assert calibration.ends_rate == pytest.approx(16 * ends_work / 95)
    assert calibration.spread == 0
