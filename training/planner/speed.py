"""Time of a training step: operations at a utilisation, or from a calibration on the machine itself."""

from dataclasses import dataclass

from training.planner.architecture import Architecture
from training.planner.flops import flops_per_token
from training.planner.layout import Layout, Shape
from training.planner.memory import states_of
from training.planner.units import Estimate

# Utilisation by PaLM's convention of well-run training: published runs reach 31 to 57 % (published.yaml); the bounds
# are wider, for small models and slow interconnects stay below.
UTILISATION = Estimate(0.25, 0.40, 0.57)
POLAR_PRODUCTS = 5  # iterations of Muon's polynomial, each with three products


@dataclass(frozen=True)
class Calibration:
    """Measured speeds of this machine, by which `step_time` predicts other shapes.

    Attributes:
        layer_rate, ends_rate: operations per second (full square) of the layers, and of embedding, norm and loss.
        layer_updates, ends_updates: parameters of each that the optimizer updates per second. Muon's products are for
            the matrices of the layers alone.
        spread: relative spread of the repetitions, for the bounds.
    """

    layer_rate: float
    ends_rate: float
    layer_updates: float
    ends_updates: float
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

    Without a calibration: operations (PaLM's convention, recomputation added) at the utilisations that published runs
    reach, on the device's best rate, and in addition Muon's products and the optimizer's passes over its states. With
    one: the measured rates of layers, ends and optimizer.
    """
    layers, ends = operations(architecture, shape)
    tokens = shape.tokens_per_step / layout.devices
    if calibration is not None:
        compute = tokens * (layers / calibration.layer_rate + ends / calibration.ends_rate)
        in_layers = architecture.num_hidden_layers * architecture.layer_parameters
        in_ends = architecture.num_parameters - in_layers
        update = in_layers / calibration.layer_updates + in_ends / calibration.ends_updates
        seconds = compute + update / layout.shards
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
