"""Memory of training per device, by component, and its peaks: in a step, while loading, while saving."""

from dataclasses import dataclass

from training.planner.architecture import Architecture
from training.planner.layout import Layout, Shape
from training.planner.units import Estimate


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a training step, and at the peaks of loading and saving.

    Attributes:
        weights, gradients, optimizer: the states, as this device holds them.
        activations: kept for the backward pass at the peak.
        logits: hidden states, logits and gradients inside the loss.
        buffers: gathered weights, buckets of gradients, low-precision copies of weights.
        temporaries: of the kernel or the optimizer step that runs at the peak.
        overhead: of the process and its libraries, which no tensor accounts for.
        phase: where in the step the peak is: `forward`, `loss`, `backward` or `optimizer`.
        peak: of the whole step, with the bounds of what is not counted exactly.
        loading, saving: peaks outside steps.
        host: bytes of main memory that a process needs beside its device.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buffers: float
    temporaries: float
    overhead: float
    phase: str
    peak: Estimate
    loading: float
    saving: float
    host: float


def peak_memory(architecture: Architecture, shape: Shape, layout: Layout) -> Memory:
    """Memory of a training step on each device of the layout, by formulas that equal the counted bytes."""
    raise NotImplementedError


def largest_micro_batch(architecture: Architecture, shape: Shape, layout: Layout, margin: float = 0.9) -> int:
    """Largest number of sequences at once that fits into `margin` of a device's memory; 0 if not even one does."""
    raise NotImplementedError
