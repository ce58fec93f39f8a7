"""Calibration: a few seconds of the real layers on this machine, from which `step_time` predicts a run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.device import pick_device, seconds
from training.optim.config import OptimizerConfig
from training.optim.optimizer import build_optimizer
from training.planner.architecture import Architecture
from training.planner.layout import Shape
from training.planner.speed import Calibration, operations
from training.pretraining.model import checkpoint_activations


def calibrate(
    architecture: Architecture, shape: Shape, budget: float = 5.0, clock: Callable[[], float] = time.perf_counter
) -> Calibration:
    """Time one and three layers of the architecture, with their embedding, loss and optimizer, on the device here.

    Half of the difference of the two is a layer; what is left of one is embedding, final norm and loss.

    Args:
        shape: its micro-batch is run as it is.
        budget: seconds, imports apart; each of the two models runs at least twice, whatever that takes.
        clock: of the measurements; by `time.process_time` the rates are those of a machine without other programs.
    """
    one, three = (_shortened(architecture, layers) for layers in (1, 3))
    configs = [network_config(model) for model in (one, three)]
    short, long = _in_turn([_passes(config, shape) for config in configs], budget * 0.7, clock)
    short_update, long_update = _in_turn([_update(config, shape) for config in configs], budget * 0.3, clock)
    layer, ends = _parts(short, long)
    layer_update, ends_update = _parts(short_update, long_update)
    tokens, in_layer = shape.micro_batch * shape.sequence_length, one.layer_parameters
    layer_work, ends_work = operations(one, shape)
    return Calibration(
        layer_rate=tokens * layer_work / layer,
        ends_rate=tokens * ends_work / ends,
        layer_updates=in_layer / layer_update,
        ends_updates=(one.num_parameters - in_layer) / ends_update,
        spread=min(statistics.median(long) / min(long) - 1, 0.5),
    )


def _parts(one: list[float], three: list[float]) -> tuple[float, float]:
    """The seconds of a layer and of the ends, from those of one layer with the ends and of three."""
    short, long = statistics.median(one), statistics.median(three)
    layer = max((long - short) / 2, 0.05 * short)
    return layer, max(short - layer, 0.01 * short)


def network_config(architecture: Architecture) -> ScratchConfig:
    """The configuration of our network with the sizes of an architecture.

    Raises:
        ValueError: the architecture has something that our network has not, such as four norms a layer.
    """
    if architecture.norms_per_layer != 2 or architecture.attention_bias != architecture.output_bias:
        raise ValueError(f"{architecture.name}: its layers are not ours, so that they cannot be run here")
    names = set(ScratchConfig.__annotations__) & set(vars(architecture)) - {"layer_types", "mlp_type"}
    options = {name: getattr(architecture, name) for name in names}
    mlp_type = "swiglu" if architecture.gated else architecture.mlp_type
    return ScratchConfig(**options, mlp_type=mlp_type, layer_types=list(architecture.layer_types) or None)


def _shortened(architecture: Architecture, layers: int) -> Architecture:
    types = (architecture.layer_types * layers)[:layers]
    return replace(architecture, num_hidden_layers=layers, layer_types=types)


def _build(config: ScratchConfig, shape: Shape) -> ScratchForCausalLM:
    model = ScratchForCausalLM._from_config(config, attn_implementation=shape.attention, dtype=torch.float32)
    if shape.checkpointing:
        checkpoint_activations(model)
    return model.to(pick_device()).train()


def _passes(config: ScratchConfig, shape: Shape) -> Callable[[], None]:
    """A forward and backward pass of a micro-batch."""
    model, device = _build(config, shape), pick_device()
    tokens = torch.randint(config.vocab_size, (shape.micro_batch, shape.sequence_length), device=device)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=shape.bf16):
            loss = model(tokens, labels=tokens, shift_labels=tokens, use_cache=False, skip_logits=shape.chunked_loss)
        loss.loss.backward()

    return run


def _update(config: ScratchConfig, shape: Shape) -> Callable[[], None]:
    """A step of the optimizer, clipping included."""
    model = _build(config, shape)
    optimizer = build_optimizer(model, OptimizerConfig(name=shape.optimizer))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def _in_turn(works: list[Callable[[], None]], budget: float, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds of each work, repeated in turn so that what else the machine does concerns all of them."""
    for work in works:
        work()  # the first call loads libraries and allocates
    times, device, deadline = [[] for _ in works], pick_device(), time.monotonic() + budget
    while not times[0] or time.monotonic() < deadline:
        for each, work in zip(times, works, strict=True):
            each.append(seconds(work, device, clock))
    return times
