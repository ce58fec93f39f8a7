"""Time of a training step: operations at a utilisation, or from a calibration on the machine itself."""

import time
from dataclasses import dataclass, replace

from training.planner.architecture import Architecture
from training.planner.flops import flops_per_token
from training.planner.layout import Layout, Shape
from training.planner.memory import local_parameters, states_of
from training.planner.units import Estimate

# Utilisation by PaLM's convention of well-run training: published runs reach 31 to 57 % (published.yaml); the bounds
# are wider, for small models and slow interconnects stay below.
UTILISATION = Estimate(0.25, 0.40, 0.55)
POLAR_PRODUCTS = 5  # iterations of Muon's polynomial, each with three products


@dataclass(frozen=True)
class Calibration:
    """Measured speeds of this machine, by which `step_time` predicts other shapes.

    Attributes:
        layer_rate, ends_rate: operations per second (full square) of the layers, and of embedding, norm and loss.
        optimizer_rate: parameters that the optimizer updates per second.
        spread: relative spread of the repetitions, for the bounds.
    """

    layer_rate: float
    ends_rate: float
    optimizer_rate: float
    spread: float = 0.1


def operations(architecture: Architecture, shape: Shape) -> tuple[float, float]:
    """Operations per token that the layers and the ends really do, recomputation included, by the full square."""
    flops = flops_per_token(architecture, shape.sequence_length)
    layers = flops.attention_matrices + flops.mlp + flops.attention_square
    return layers * (4 / 3 if shape.checkpointing else 1), flops.output_matrix


def polar_operations(architecture: Architecture) -> float:
    """Operations of Muon's products in one optimizer step, over all matrices of the layers."""
    a = architecture
    matrices = [(a.query_width, a.hidden_size)] * 2 + [(a.key_value_width, a.hidden_size)] * 2
    matrices += [(a.intermediate_size, a.hidden_size)] * (3 if a.gated else 2)
    total = 0.0
    for sides in matrices:
        small, large = min(sides), max(sides)
        total += POLAR_PRODUCTS * (4 * small * small * large + 2 * small**3)
    return a.num_hidden_layers * total


def step_time(
    architecture: Architecture, shape: Shape, layout: Layout, calibration: Calibration | None = None
) -> Estimate:
    """Seconds of an optimizer step.

    Without a calibration: model operations at the utilisations that published runs reach (PaLM's convention, in which
    recomputation does not count as useful), on the device's best rate. With one: the measured rates of layers, ends and
    optimizer. Muon's products and the passes of the optimizer over its states are added to both.
    """
    layers, ends = operations(architecture, shape)
    tokens = shape.tokens_per_step / layout.devices
    if calibration is not None:
        compute = tokens * (layers / calibration.layer_rate + ends / calibration.ends_rate)
        update = architecture.num_parameters / layout.shards / calibration.optimizer_rate
        seconds = compute + update
        margin = max(calibration.spread, 0.05)
        return Estimate(seconds * (1 - margin), seconds, seconds * (1 + 2 * margin))
    work = tokens * (layers + ends) / layout.device.rate
    states = states_of(architecture, shape, layout)
    passes = 2 * (states.weights + states.optimizer + states.gradients) / (layout.device.bandwidth_tb * 1e12)
    if shape.optimizer == "muon":
        work += polar_operations(architecture) / layout.devices / layout.device.rate
    return Estimate(
        work / UTILISATION.high + passes, work / UTILISATION.expected + passes, work / UTILISATION.low + 2 * passes
    )


def calibrate(architecture: Architecture, shape: Shape, budget: float = 5.0) -> Calibration:
    """Time one and two real layers of the architecture on this machine.

    Args:
        shape: its micro-batch is run as it is; a step of the two-layer model should fit into a second or two.
        budget: seconds, imports apart. Each model is run at least twice.
    """
    import torch

    from training.common.device import pick_attention, pick_device

    device = pick_device()
    attention = shape.attention or pick_attention(device, shape.sequence_length, compiled=False)
    seconds, spread, updates = {}, 0.0, {}
    for layers in (1, 2):
        small = replace(architecture, num_hidden_layers=layers, layer_types=architecture.layer_types[:layers])
        times, update = _time_step(small, replace(shape, attention=attention), device, budget / 2)
        seconds[layers], updates[layers] = min(times), update
        spread = max(spread, sorted(times)[len(times) // 2] / min(times) - 1)
    del torch
    tokens = shape.micro_batch * shape.sequence_length
    one = replace(architecture, num_hidden_layers=1, layer_types=architecture.layer_types[:1])
    layer_work, ends_work = operations(one, shape)
    layer = max(seconds[2] - seconds[1], 0.05 * seconds[1])
    ends = max(seconds[1] - layer, 0.01 * seconds[1])
    return Calibration(
        layer_rate=tokens * layer_work / layer,
        ends_rate=tokens * ends_work / ends,
        optimizer_rate=one.num_parameters / updates[1],
        spread=min(spread, 0.5),
    )
