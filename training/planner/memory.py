"""Memory of training per device, by component, and its peaks: in a step, while loading, while saving."""

from collections import Counter
from dataclasses import dataclass, replace

from training.planner.activations import (
    backward_bytes,
    final_norm_bytes,
    layer_bytes,
    loss_bytes,
    mask_bytes,
    unit_of,
)
from training.planner.architecture import Architecture
from training.planner.layout import Layout, Shape
from training.planner.units import Estimate

POLAR_BATCH = 2**26  # elements that Muon multiplies together, of training/optim/muon.py
DDP_BUCKETS = 4  # bytes a parameter: gradients are copied into buckets (torch's default, gradient_as_bucket_view=False)
DEEPSPEED_BUCKET = 5 * 10**8  # elements; DeepSpeed's default reduce_bucket_size
DEEPSPEED_LIVE = 10**9  # parameters gathered at once; DeepSpeed's default stage3_max_live_parameters
# Of the process: libraries and context. On a CPU, resident memory after importing torch and transformers and a step of
# a tiny model.
OVERHEAD_GPU = Estimate(0.4e9, 0.7e9, 1.5e9)
OVERHEAD_CPU = Estimate(0.42e9, 0.45e9, 0.6e9)
# What an allocator loses between tensors, as a share of what is not weights, gradients or optimizer states.
FRAGMENTATION_GPU = Estimate(0.0, 0.03, 0.12)
# On a CPU, of activations and temporaries: the C library keeps freed tensors below 32 MiB (measured in
# docs/planning.md).
FRAGMENTATION_CPU = Estimate(0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a training step, and at the peaks of loading and saving.

    Attributes:
        weights, gradients, optimizer: the states, as this device holds them at the peak.
        activations: kept for the backward pass at the peak.
        logits: hidden states, logits and gradients inside the loss.
        buffers: gathered weights, buckets of gradients, low-precision copies of weights.
        temporaries: of the backward pass of a layer or of the optimizer step, if one of them is the peak.
        overhead: of the process, its libraries and its allocator, which no tensor accounts for.
        phase: where in the step the peak is: `loss`, `backward`, `embedding` or `optimizer`.
        peak: of the whole step, with the bounds of what is not counted exactly.
        loading, saving: peaks outside steps, on the device.
        host: main memory that a process needs beside its device, for loading and for copies of checkpoints.
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

    @property
    def allocated(self) -> float:
        """Bytes of tensors alone, at the peak: what torch's `max_memory_allocated` reports."""
        states = self.weights + self.gradients + self.optimizer
        return states + self.activations + self.logits + self.buffers + self.temporaries

    @property
    def needed(self) -> float:
        """Bytes that the device must have: the expected peak of a step, or that of loading or saving."""
        return max(self.peak.expected, self.loading, self.saving)


@dataclass(frozen=True)
class States:
    """Bytes that a device holds between steps and during them.

    Attributes:
        weights: fp32 weights, or the engine's own copies.
        optimizer: moments, and an engine's fp32 weights.
        gradients: of all parameters, as this device keeps them.
        buffers: of the engine: buckets, gathered weights.
    """

    weights: float
    optimizer: float
    gradients: float
    buffers: float


def local_parameters(architecture: Architecture, layout: Layout) -> tuple[float, float]:
    """Parameters of one layer and of all else on a device, after tensor parallelism and before sharding."""
    layer = architecture.layer_parameters
    matrices = architecture.attention_matrices + architecture.mlp_matrices
    part = layer - matrices + matrices / layout.tensor_parallel
    rest = architecture.num_parameters - layer * architecture.num_hidden_layers
    if not architecture.tie_word_embeddings:  # the output matrix is divided by columns, the embedding is not
        rest -= architecture.head_matrix * (1 - 1 / layout.tensor_parallel)
    return part, rest


def states_of(architecture: Architecture, shape: Shape, layout: Layout) -> States:
    """The states of training on one device."""
    layer, rest = local_parameters(architecture, layout)
    total = architecture.num_hidden_layers * layer + rest
    matrices = architecture.layer_matrices / layout.tensor_parallel
    moments = 8 * total - (4 * matrices if shape.optimizer == "muon" else 0)  # Muon has one moment
    shards = layout.shards
    if layout.sharding == "zero2":
        own = 2 if shape.bf16 else 4
        masters = (4 * total if shape.bf16 else 0) / shards
        buckets = 2 * own * min(total, DEEPSPEED_BUCKET)
        return States(own * total, moments / shards + masters, 4 * total / shards + own * layer, buckets)
    if layout.sharding == "zero3":
        own = 2 if shape.bf16 else 4
        masters = (4 * total if shape.bf16 else 0) / shards
        live = own * min(total, DEEPSPEED_LIVE) if shards > 1 else 0
        buckets = own * min(total, DEEPSPEED_BUCKET) + live
        return States(own * total / shards, moments / shards + masters, 4 * total / shards, buckets)
    if layout.sharding == "fsdp2":
        own = unit_of(shape)
        # The running layer and the next, gathered; the gradient of one, whole and in fp32 to be reduced; embedding and
        # output matrix, which stay gathered from the forward pass to the end of the backward pass.
        gathered = (2 * own * layer + (own + 4) * layer + own * rest) if shards > 1 else 0
        return States(4 * total / shards, moments / shards, 4 * total / shards, gathered)
    buckets = DDP_BUCKETS * total if layout.sharding == "ddp" and layout.data_parallel > 1 else 0
    return States(4 * total, moments, 4 * total, buckets)


def peak_memory(architecture: Architecture, shape: Shape, layout: Layout) -> Memory:
    """Memory of a training step on each device of the layout.

    The peak is the highest of four moments: inside the loss, when all activations exist; at the first or the last
    layer of the backward pass; at the gradient of the embedding; in the optimizer step.
    """
    if layout.computes_logits:
        shape = replace(shape, chunked_loss=False)
    phases = [
        _in_loss(architecture, shape, layout),
        _in_final_norm(architecture, shape, layout),
        *_in_backward(architecture, shape, layout),
        _in_optimizer(architecture, shape, layout),
    ]
    phase = max(phases, key=lambda memory: memory.allocated)
    if layout.device.cpu:
        base, lost = OVERHEAD_CPU, FRAGMENTATION_CPU * (phase.activations + phase.temporaries)
    else:
        states = phase.weights + phase.gradients + phase.optimizer
        base, lost = OVERHEAD_GPU, FRAGMENTATION_GPU * (phase.allocated - states)
    overhead = base + lost
    whole = 4 * architecture.num_parameters
    own = states_of(architecture, shape, layout)
    held = own.weights + own.optimizer
    gathered = 4 * architecture.layer_parameters if layout.sharding in ("fsdp2", "zero3") else 0
    layer, rest = local_parameters(architecture, layout)
    # Each process moves its model to the device before an engine divides it; tensor parallelism divides it earlier.
    loaded = 4 * (architecture.num_hidden_layers * layer + rest)
    copy = 0 if layout.shards > 1 else held  # checkpoints are written from a copy in main memory
    return replace(
        phase,
        overhead=overhead.expected,
        peak=Estimate.exact(phase.allocated) + overhead,
        loading=loaded + base.expected,
        saving=held + gathered + (copy if layout.device.cpu else 0) + base.expected,
        host=0 if layout.device.cpu else OVERHEAD_CPU.expected + whole + copy,
    )


def _moment(phase: str, states: States, **bytes_by_component: float) -> Memory:
    """The memory of a moment of the step; components that are not given are 0."""
    components = {"gradients": 0.0, "activations": 0.0, "logits": 0.0, "buffers": 0.0, "temporaries": 0.0}
    components |= bytes_by_component
    return Memory(
        weights=states.weights,
        optimizer=states.optimizer,
        overhead=0.0,
        phase=phase,
        peak=Estimate.exact(0.0),
        loading=0.0,
        saving=0.0,
        host=0.0,
        **components,
    )


def _casts(architecture: Architecture, shape: Shape, layout: Layout) -> float:
    """Bytes of a layer's weights in bf16, which autocast makes and its products keep for the backward pass."""
    if not shape.bf16 or layout.sharding in ("zero2", "zero3", "fsdp2"):  # these hold bf16 weights already
        return 0.0
    return 2 * local_parameters(architecture, layout)[0]


def _accumulated(states: States, shape: Shape, layout: Layout) -> float:
    """Gradients that exist throughout the step: those of earlier micro-batches, or an engine's own."""
    keeps = layout.accumulation_steps(shape) > 1 or layout.sharding in ("zero2", "zero3")
    return states.gradients if keeps else 0.0


def _layers_kept(architecture: Architecture, shape: Shape, layout: Layout) -> tuple[float, float]:
    """Bytes that each layer keeps, and that the layer in its backward pass has in all."""
    tokens = shape.micro_batch * shape.sequence_length
    whole = tokens * layer_bytes(architecture, shape, layout.device.cpu, layout.tensor_parallel)
    if shape.checkpointing:
        return tokens * unit_of(shape) * architecture.hidden_size, whole
    return whole, whole


def _in_loss(architecture: Architecture, shape: Shape, layout: Layout) -> Memory:
    states, layers = states_of(architecture, shape, layout), architecture.num_hidden_layers
    kept, _ = _layers_kept(architecture, shape, layout)
    return _moment(
        "loss",
        states,
        gradients=_accumulated(states, shape, layout),
        activations=layers * kept + _ends(architecture, shape),
        logits=loss_bytes(architecture, shape, layout.device.cpu),
        buffers=states.buffers + layers * _casts(architecture, shape, layout),
    )


def _in_final_norm(architecture: Architecture, shape: Shape, layout: Layout) -> Memory:
    states, layers = states_of(architecture, shape, layout), architecture.num_hidden_layers
    kept, _ = _layers_kept(architecture, shape, layout)
    tokens = shape.micro_batch * shape.sequence_length
    # With checkpointing, autocast has dropped its copies of the weights; else the layers keep them.
    casts = 0.0 if shape.checkpointing else layers * _casts(architecture, shape, layout)
    return _moment(
        "backward",
        states,
        gradients=max(_accumulated(states, shape, layout), _head_gradient(architecture, layout)),
        activations=layers * kept + _ends(architecture, shape),
        temporaries=tokens * final_norm_bytes(architecture, shape),
        buffers=states.buffers + casts,
    )


def _head_gradient(architecture: Architecture, layout: Layout) -> float:
    return 4 * architecture.head_matrix / (layout.shards if layout.sharding == "fsdp2" else 1)


def _ends(architecture: Architecture, shape: Shape) -> float:
    """The final norm's input in fp32 and its normalised copy; its output belongs to the loss."""
    tokens, unit = shape.micro_batch * shape.sequence_length, unit_of(shape)
    mask = tokens * mask_bytes(shape) if shape.checkpointing else 0.0  # the recomputation needs it
    return tokens * architecture.hidden_size * (4 + unit if architecture.norm_type == "rms" else unit) + mask


def _in_backward(architecture: Architecture, shape: Shape, layout: Layout) -> list[Memory]:
    states, layers = states_of(architecture, shape, layout), architecture.num_hidden_layers
    kept, whole = _layers_kept(architecture, shape, layout)
    tokens = shape.micro_batch * shape.sequence_length
    running = whole - kept if shape.checkpointing else 0.0  # recomputed
    running += tokens * backward_bytes(architecture, shape, layout.tensor_parallel)
    running += tokens * mask_bytes(shape) if shape.checkpointing else 0.0
    layer, rest = local_parameters(architecture, layout)
    shards = layout.shards if layout.sharding == "fsdp2" else 1
    head = _head_gradient(architecture, layout)
    accumulated = _accumulated(states, shape, layout)
    casts = _casts(architecture, shape, layout)
    moments = []
    for done in (0, layers - 1):
        live = 1 if shape.checkpointing else layers - done  # with checkpointing autocast makes its copies again
        moments.append(
            _moment(
                "backward",
                states,
                gradients=max(accumulated, head + 4 * done * layer / shards),
                activations=(layers - done) * kept,
                temporaries=running,
                buffers=states.buffers + live * casts,
            )
        )
    embedding = 4 * architecture.vocab_size * architecture.hidden_size
    gradients = 3 if architecture.tie_word_embeddings else 1  # tied: of both uses, and their sum
    moments.append(
        _moment(
            "embedding",
            states,
            gradients=max(accumulated, 4 * (layers * layer + rest - embedding / 4) / shards),
            temporaries=gradients * embedding + 2 * tokens * unit_of(shape) * architecture.hidden_size,
            buffers=states.buffers,
        )
    )
    return moments


def _in_optimizer(architecture: Architecture, shape: Shape, layout: Layout) -> Memory:
    states = states_of(architecture, shape, layout)
    temporaries = 0.0
    if shape.optimizer == "muon":
        temporaries = max(_polar_bytes(architecture), 4 * architecture.head_matrix / layout.shards)
    buffers = states.buffers if layout.sharding == "ddp" else 0.0
    return _moment("optimizer", states, gradients=states.gradients, temporaries=temporaries, buffers=buffers)


def _polar_bytes(architecture: Architecture) -> float:
    """Temporaries of Muon's products, over the matrices of one shape at a time: averaged gradients, iterates and Gram
    matrices, and the factors of the shape before."""
    a = architecture
    shapes: Counter[tuple[int, int]] = Counter()  # in the order of the parameters
    shapes[(a.query_width, a.hidden_size)] += 1
    shapes[(a.key_value_width, a.hidden_size)] += 2
    shapes[(a.hidden_size, a.query_width)] += 1
    shapes[(a.intermediate_size, a.hidden_size)] += 2 if a.gated else 1
    shapes[(a.hidden_size, a.intermediate_size)] += 1
    most, before = 0.0, 0.0
    for (rows, columns), count in shapes.items():
        size, gram = rows * columns, min(rows, columns) ** 2
        batch = min(a.num_hidden_layers * count, max(1, POLAR_BATCH // size))
        most = max(most, batch * max(14 * size + 2 * gram, 10 * size + 8 * gram) + before)
        before = 2.0 * batch * size
    return most


def largest_micro_batch(architecture: Architecture, shape: Shape, layout: Layout, margin: float = 1.0) -> int:
    """Largest number of sequences at once whose expected peak fits; 0 if not even one does.

    Args:
        margin: share of the device's memory that may be used.
    """
    room = margin * layout.device.memory

    def fits(size: int) -> bool:
        return peak_memory(architecture, replace(shape, micro_batch=size), layout).needed <= room

    if not fits(1):
        return 0
    most = 1
    while most < 2**20 and fits(2 * most):
        most *= 2
    low, high = most, 2 * most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
