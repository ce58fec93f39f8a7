"""Calibration: a few seconds of the real layers on this machine, from which `step_time` predicts a run."""

import time
from dataclasses import replace
from typing import Any

import torch

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.device import pick_device, seconds
from training.optim.config import OptimizerConfig
from training.optim.optimizer import build_optimizer
from training.planner.architecture import Architecture
from training.planner.layout import Shape
from training.planner.speed import Calibration, operations
from training.pretraining.model import checkpoint_activations


def calibrate(architecture: Architecture, shape: Shape, budget: float = 5.0) -> Calibration:
    """Time one and two layers of the architecture, with their embedding, loss and optimizer, on this machine's device.

    The difference of the two is a layer; what is left of one is embedding, final norm and loss.

    Args:
        shape: its micro-batch is run as it is.
        budget: seconds, imports apart; each of the two models runs at least twice, whatever that takes.
    """
    one, two = (_shortened(architecture, layers) for layers in (1, 2))
    short, long = (_time_passes(network_config(model), shape, budget * 0.4) for model in (one, two))
    update = _time_optimizer(network_config(two), shape, budget * 0.2)
    tokens = shape.micro_batch * shape.sequence_length
    layer_work, ends_work = operations(one, shape)
    layer = max(min(long) - min(short), 0.05 * min(short))
    ends = max(min(short) - layer, 0.01 * min(short))
    middle = sorted(long)[len(long) // 2]
    return Calibration(
        layer_rate=tokens * layer_work / layer,
        ends_rate=tokens * ends_work / ends,
        optimizer_rate=two.num_parameters / update,
        spread=min(middle / min(long) - 1, 0.5),
    )


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
    return replace(architecture, num_hidden_layers=layers, layer_types=architecture.layer_types[:layers])


def _build(config: ScratchConfig, shape: Shape) -> ScratchForCausalLM:
    model = ScratchForCausalLM._from_config(config, attn_implementation=shape.attention, dtype=torch.float32)
    if shape.checkpointing:
        checkpoint_activations(model)
    return model.to(pick_device()).train()


def _time_passes(config: ScratchConfig, shape: Shape, budget: float) -> list[float]:
    """Seconds of forward and backward passes of a micro-batch, the first left out."""
    model, device = _build(config, shape), pick_device()
    tokens = torch.randint(config.vocab_size, (shape.micro_batch, shape.sequence_length), device=device)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=shape.bf16):
            loss = model(tokens, labels=tokens, shift_labels=tokens, use_cache=False, skip_logits=shape.chunked_loss)
        loss.loss.backward()

    return _repeat(run, device, budget)


def _time_optimizer(config: ScratchConfig, shape: Shape, budget: float) -> float:
    """Seconds of a step of the optimizer, clipping included."""
    model, device = _build(config, shape), pick_device()
    optimizer = build_optimizer(model, OptimizerConfig(name=shape.optimizer))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return min(_repeat(run, device, budget))


def _repeat(work: Any, device: torch.device, budget: float) -> list[float]:
    work()  # the first call loads libraries and allocates
    times, deadline = [seconds(work, device)], time.monotonic() + budget
    while time.monotonic() < deadline:
        times.append(seconds(work, device))
    return times
