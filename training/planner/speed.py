"""Time of a training step and of a run: operations at a utilisation, or from a calibration on the machine itself."""

from dataclasses import dataclass

from training.planner.architecture import Architecture
from training.planner.layout import Layout, Shape
from training.planner.units import Estimate


@dataclass(frozen=True)
class Calibration:
    """Measured seconds on this machine, by which `step_time` predicts other shapes.

    Attributes:
        layer_rate, ends_rate: operations per second of the layers, and of embedding, norm and loss together.
        optimizer_rate: parameters that the optimizer updates per second.
    """

    layer_rate: float
    ends_rate: float
    optimizer_rate: float


def calibrate(architecture: Architecture, shape: Shape, budget: float = 5.0) -> Calibration:
    """Time one and two real layers of the architecture on this machine, for about `budget` seconds."""
    raise NotImplementedError


def step_time(
    architecture: Architecture, shape: Shape, layout: Layout, calibration: Calibration | None = None
) -> Estimate:
    """Seconds of an optimizer step: from the calibration, or else from the device's rate at published utilisations."""
    raise NotImplementedError
