"""The shape of a run and the devices it is laid out on: batch, precision, sharding, tensor parallelism."""

from dataclasses import dataclass
from typing import Literal

from training.common.errors import UserError
from training.common.operations import keys_of_blocks
from training.planner.architecture import Architecture
from training.planner.facts.devices import Device

Sharding = Literal["none", "ddp", "zero2", "zero3", "fsdp2"]
MACHINE = 8  # devices of one
# Sizes that the devices of a tensor-parallel group must share evenly; training/model_io/tensor_parallel.py.
_SHARED = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")


@dataclass(frozen=True)
class Shape:
    """The batch, length and numerics of a run, on whatever devices.

    Attributes:
        sequence_length: tokens per sequence.
        micro_batch: sequences per device and forward pass (`per_device_train_batch_size`).
        global_batch: sequences per optimizer step, over all devices and accumulation steps.
        steps: optimizer steps.
        bf16: bfloat16 autocast over fp32 weights; False: fp32 throughout.
        optimizer: `muon` uses AdamW for embeddings, output matrix and scalars, as `training.optim` does.
        checkpointing: activations of a layer are recomputed in its backward pass.
        attention: `eager` holds the (seq, seq) scores of every head, `blockwise` those up to the end of each block; the
            others hold none.
        chunked_loss: the loss without logits (`skip_logits`), where the layout allows it; False: all logits exist.
    """

    sequence_length: int = 1024
    micro_batch: int = 1
    global_batch: int = 32
    steps: int = 1000
    bf16: bool = True
    optimizer: Literal["adamw", "muon"] = "muon"
    checkpointing: bool = False
    attention: Literal["eager", "blockwise", "sdpa", "flex_attention", "flash_attention_2"] = "sdpa"
    chunked_loss: bool = True

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a global batch."""
        return self.global_batch * self.sequence_length

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.tokens_per_step

    @property
    def keys_scored(self) -> float:
        """Scores of a query and head that are in memory, masked ones included; 0 with fused attention."""
        if self.attention == "blockwise":
            return keys_of_blocks(self.sequence_length)
        return self.sequence_length if self.attention == "eager" else 0


@dataclass(frozen=True)
class Layout:
    """Devices of one kind and how they share the work.

    `devices = replicas * shards * tensor_parallel`: every device of a group of `tensor_parallel` has a part of each
    matrix of a layer; `shards` groups divide the states as `sharding` says; `replicas` are copies of all of that, with
    the same states (FSDP2's hybrid sharding, or plain DDP).

    Attributes:
        device: the kind of device.
        devices: their number.
        sharding: `none` and `ddp` divide nothing; `zero2` divides gradients and optimizer, `zero3` and `fsdp2` the
            weights too.
        tensor_parallel: devices that share each matrix.
        replicas: groups that hold the same states, for `zero2`, `zero3` and `fsdp2`.

    Raises:
        UserError: the numbers do not divide.
    """

    device: Device
    devices: int = 1
    sharding: Sharding = "none"
    tensor_parallel: int = 1
    replicas: int = 1

    def __post_init__(self):
        unit = self.tensor_parallel * self.replicas
        if self.devices % unit:
            raise UserError(
                f"'devices': {self.devices} is not a multiple of tensor_parallel x replicas "
                f"({self.tensor_parallel} x {self.replicas}); set it to {-(-self.devices // unit) * unit}"
            )
        if self.sharding == "none" and self.data_parallel > 1:
            raise UserError(f"'sharding': none uses one device, not {self.devices}; set it to ddp or fsdp2")

    @property
    def data_parallel(self) -> int:
        """Groups of devices that read different sequences."""
        return self.devices // self.tensor_parallel

    @property
    def shards(self) -> int:
        """Parts into which weights, gradients or optimizer states are divided, beside tensor parallelism."""
        return 1 if self.sharding in ("none", "ddp") else self.data_parallel // self.replicas

    @property
    def computes_logits(self) -> bool:
        """Whether the loss needs all logits: engines that gather or divide the output matrix hook its module."""
        return self.sharding in ("zero2", "zero3", "fsdp2") or self.tensor_parallel > 1

    @property
    def divides_matrices(self) -> bool:
        """Whether no device has whole matrices in its optimizer step, as Muon needs them."""
        return self.sharding in ("zero2", "zero3") or self.tensor_parallel > 1

    def accumulation_steps(self, shape: Shape) -> int:
        """Forward and backward passes of a device per optimizer step, rounded up."""
        return max(1, -(-shape.global_batch // (shape.micro_batch * self.data_parallel)))

    def describe(self) -> str:
        """The layout in words, such as `8 x H100 SXM, fsdp2, tensor parallel 2`."""
        parts = [f"{self.devices} x {self.device.name}" if self.devices > 1 else self.device.name]
        parts += [self.sharding] if self.devices > self.tensor_parallel else []
        parts += [f"tensor parallel {self.tensor_parallel}"] if self.tensor_parallel > 1 else []
        parts += [f"{self.replicas} replicas"] if self.replicas > 1 else []
        return ", ".join(parts)


def indivisible(architecture: Architecture, tensor_parallel: int) -> str | None:
    """Name of the first size that a tensor-parallel group cannot share evenly; None if it can share all."""
    return next((name for name in _SHARED if getattr(architecture, name) % tensor_parallel), None)


def check_layout(architecture: Architecture, shape: Shape, layout: Layout) -> None:
    """Raise UserError if `scratch pretrain` cannot train in this layout, whatever memory there is."""
    if shape.optimizer == "muon" and layout.divides_matrices:
        raise UserError(f"'optimizer': muon needs whole matrices, which {layout.describe()} divides; use adamw")
    name = indivisible(architecture, layout.tensor_parallel)
    if name is not None:
        raise UserError(
            f"'tensor_parallel': {layout.tensor_parallel} devices cannot share {getattr(architecture, name):,} "
            f"({name}) evenly; use a divisor"
        )
