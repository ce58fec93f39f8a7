"""Memory of a training step, counted: the real layers run on fake tensors, and every live storage is followed.

Fake tensors (torch's FakeTensorMode) have shapes and no content, so that a step of any size takes a second or two and
no memory. A mode below sees each operation, notes the storages that it creates, and forgets them when Python's last
reference to them goes. The result is what a device with an exact allocator would need. The formulas in `memory` are
checked against these counts.
"""

import contextlib
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.optim.config import OptimizerConfig
from training.optim.optimizer import build_optimizer
from training.planner.layout import Shape
from training.pretraining.model import checkpoint_activations


@dataclass
class Peaks:
    """Bytes of live storages, by phase of a step, in the order in which the phases come.

    Attributes:
        states: weights (and, after the first step, optimizer states) that live through the whole step.
        by_phase: highest number of live bytes in each phase, states included.
    """

    states: int = 0
    by_phase: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The highest number of bytes of the whole step."""
        return max(self.by_phase.values())


class LiveStorages(TorchDispatchMode):
    """Follows the storages of tensors that operations create; `phase` names what is running."""

    def __init__(self):
        super().__init__()
        self.live, self.phase, self.peaks = 0, "build", {}
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # a number read from a tensor, such as the optimizer's step: any will do
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf.untyped_storage())
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.live + _converted_bytes(func, args))
        return out

    def note(self, storage: torch.UntypedStorage) -> None:
        """Count a storage from now until it is freed."""
        key, size = id(storage), storage.nbytes()
        if key in self.known:
            return

        def free(_: weakref.ref) -> None:
            self.live -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, free)
        self.live += size


def _converted_bytes(func: Any, args: Any) -> int:
    """Bytes of the copy that a CPU makes of an addend in another dtype than the sum's. A GPU makes none."""
    if func is not torch.ops.aten.add_.Tensor or args[0].device.type != "cpu":
        return 0
    total, addend = args
    differs = isinstance(addend, torch.Tensor) and addend.dtype != total.dtype
    return addend.numel() * total.element_size() if differs else 0


def count_step(config: ScratchConfig, shape: Shape, device: str = "cpu") -> Peaks:
    """Bytes live in each phase of the second optimizer step of one device, with its states in place.

    Args:
        config: of the network, at its real sizes; the number of layers may be reduced.
        shape: of the run; of several micro-batches per step two are run, the second with gradients in place.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), LiveStorages() as storages, torch.device(device):
        model = ScratchForCausalLM._from_config(config, attn_implementation=shape.attention, dtype=torch.float32)
        model._loss_is_plain = lambda: True  # it is, but the class of fake weights looks like a change
        _skip_needless_masks(model, shape)
        if shape.checkpointing:
            checkpoint_activations(model)
        model.train()
        optimizer = build_optimizer(model, OptimizerConfig(name=shape.optimizer))
        _mark_phases(model, storages)
        for _ in range(2):
            storages.peaks.clear()
            states = storages.live
            _run_step(model, optimizer, shape, storages, device)
        return Peaks(states, dict(storages.peaks))


def count_peak(config: ScratchConfig, shape: Shape, device: str = "cpu") -> int:
    """Peak bytes of tensors in a training step: two and three layers counted, more extrapolated phase by phase.

    Every phase needs the same number of bytes more for each layer. Muon's products alone need not, as they take at most
    so many matrices together.
    """
    layers = config.num_hidden_layers
    if layers <= 3:
        return count_step(config, shape, device).peak
    two, three = (_phases(count_step(_shortened(config, count), shape, device)) for count in (2, 3))
    return max(two[phase] + (layers - 2) * (three[phase] - two[phase]) for phase in two)


def _shortened(config: ScratchConfig, layers: int) -> ScratchConfig:
    values = {name: getattr(config, name) for name in ScratchConfig.__annotations__ if hasattr(config, name)}
    return ScratchConfig(**(values | {"num_hidden_layers": layers, "layer_types": config.layer_types[:layers]}))


def _phases(peaks: Peaks) -> dict[str, int]:
    """Peaks by phase, where the first layer that the backward pass reaches has the same name at any depth."""
    last = max((phase for phase in peaks.by_phase if "layer" in phase), key=lambda phase: int(phase.split()[-1]))
    middle = {phase for phase in peaks.by_phase if "layer" in phase} - {last, "backward: layer 0"}
    named = {phase: size for phase, size in peaks.by_phase.items() if phase not in middle}
    return {("backward: last layer" if phase == last else phase): size for phase, size in named.items()}


def _run_step(model: Any, optimizer: Any, shape: Shape, storages: LiveStorages, device: str) -> None:
    for _ in range(2 if shape.global_batch > shape.micro_batch else 1):
        _run_micro_batch(model, shape, storages, device)
    storages.phase = "clip"
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    storages.phase = "optimizer"
    optimizer.step()
    optimizer.zero_grad()
    storages.phase = "idle"


def _run_micro_batch(model: Any, shape: Shape, storages: LiveStorages, device: str) -> None:
    size = shape.micro_batch, shape.sequence_length
    storages.phase = "forward"
    input_ids, labels = (torch.zeros(size, dtype=torch.long) for _ in range(2))
    autocast = torch.autocast(device, torch.bfloat16) if shape.bf16 else contextlib.nullcontext()
    with autocast:
        loss = model(
            input_ids=input_ids,
            labels=labels,
            shift_labels=labels,
            use_cache=False,
            skip_logits=shape.chunked_loss,
            num_items_in_batch=labels.numel(),
        ).loss
    storages.phase = "backward: head"
    loss.backward()


def _skip_needless_masks(model: ScratchForCausalLM, shape: Shape) -> None:
    """Leave out the masks that a real run does not build. On fake tensors transformers builds all of them, as it cannot
    see whether a kernel's own causal mask would do."""
    if shape.keys_scored:
        return
    backbone, window = model.model, model.config.sliding_window or shape.sequence_length
    built = backbone.attention_masks

    def masks(*arguments: Any) -> dict[str, torch.Tensor | None]:
        needed = window < shape.sequence_length
        found = built(*arguments) if needed else {"sliding_attention": None}
        return found | {"full_attention": None}

    backbone.attention_masks = masks


def _mark_phases(model: ScratchForCausalLM, storages: LiveStorages) -> None:
    """Set `phase` when the loss begins, and when the backward pass reaches a layer or the embedding."""

    def enter(phase: str) -> None:
        storages.phase = phase

    def mark(tensor: torch.Tensor, phase: str) -> None:
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: enter(phase))

    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda _, __, output, index=index: mark(output, f"backward: layer {index}"))
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: mark(inputs[0], "backward: embedding"))
    model.model.norm.register_forward_hook(lambda *_: enter("loss"))
