"""Training speed: tokens per second, and model FLOPs utilisation (MFU) against the device's fastest matrix product."""

import contextlib
import time
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import nn

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.device import matrix_product_rate, synchronize
from training.common.operations import attention_operations, matrix_operations, positions_seen
from training.pretraining.config import PretrainConfig


def matrix_parameters(model: nn.Module) -> int:
    """The number of weights in matrix products, output matrix included.

    An embedding counts only if it is also the output matrix: otherwise it is a lookup.
    """
    return sum(weight.numel() for weight in {part.weight for part in model.modules() if isinstance(part, nn.Linear)})


def operations_per_token(model: nn.Module, config: ScratchConfig, sequence_length: int) -> int:
    """Floating-point operations of a training step per token.

    Counted as in PaLM (appendix B of https://arxiv.org/abs/2204.02311), but without the positions that a causal mask
    hides. Forward and backward take 6 operations per weight of a matrix product. The two products of attention take
    12 * heads * head_dim per layer and position that a token attends to on average. Activations computed again by
    activation checkpointing do not count.
    """
    windows = [config.sliding_window if kind == "sliding_attention" else None for kind in config.layer_types]
    seen = [positions_seen(sequence_length, window) for window in windows]
    attention = attention_operations(config.num_attention_heads * config.head_dim, seen)
    return round(matrix_operations(matrix_parameters(model)) + attention)


class Throughput:
    """The clock of a training loop, which pauses during validations and checkpoints.

    Args:
        tokens_per_step: tokens of a global batch.
        operations_per_token: floating-point operations, from the function of this name.
        rate: floating-point operations per second of all devices' matrix products together.
    """

    def __init__(self, device: torch.device, tokens_per_step: int, operations_per_token: int, rate: float):
        self.device = device
        self.tokens_per_step = tokens_per_step
        self.operations_per_token = operations_per_token
        self.rate = rate
        self.seconds_before = 0.0  # of training, before this run was resumed
        self.start(step=0)

    def start(self, step: int) -> None:
        """Start the clock at `step`."""
        self.first_step = self.read_step = step
        self.started = self.running_since = self.read_at = time.monotonic()
        self.paused_at: float | None = None

    @property
    def operations_per_step(self) -> int:
        """Floating-point operations of an optimizer step."""
        return self.tokens_per_step * self.operations_per_token

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without validations and checkpoints."""
        return self.seconds_before + (self.paused_at or time.monotonic()) - self.running_since

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside a `with` block."""
        synchronize(self.device)  # steps still running on the device are training
        self.paused_at = time.monotonic()
        yield
        pause, self.paused_at = time.monotonic() - self.paused_at, None
        self.running_since += pause
        self.read_at += pause

    def read(self, step: int) -> dict[str, float]:
        """`tokens_per_second` and `mfu` since the last call. Waits for the device."""
        synchronize(self.device)
        now = time.monotonic()
        tokens_per_second = (step - self.read_step) * self.tokens_per_step / (now - self.read_at)
        self.read_step, self.read_at = step, now
        mfu = tokens_per_second * self.operations_per_token / self.rate
        return {"tokens_per_second": round(tokens_per_second), "mfu": round(mfu, 4)}

    def time_left(self, step: int, max_steps: int) -> float:
        """Seconds to the end, at the average speed of this process so far, pauses included."""
        return (time.monotonic() - self.started) / max(1, step - self.first_step) * (max_steps - step)


def build_throughput(config: PretrainConfig, model: ScratchForCausalLM, accelerator: Accelerator) -> Throughput:
    """The clock of a run, with the rate of matrix products measured on this machine's device."""
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    return Throughput(
        accelerator.device,
        tokens_per_step=config.global_batch_size * config.sequence_length,
        operations_per_token=operations_per_token(model, model.config, config.sequence_length),
        rate=matrix_product_rate(accelerator.device, dtype) * accelerator.num_processes,
    )
