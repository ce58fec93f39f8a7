"""The training state in a checkpoint: weights and optimizer, captured and restored.

If every process holds the whole model, a checkpoint is plain files. The model directory has the fp32 weights, from
which a run also resumes. `state/optimizer.safetensors` has every tensor of the optimizer, named by its parameter and
itself: `model.layers.0.mlp.up_proj.weight/momentum`. Schedule, data order and random draws follow from the step (see
`training.pretraining.randomness`), so this is all, for any number of processes. Nothing is pickled.

Engines that shard the model over processes (FSDP, DeepSpeed) write `state/` in their own layout. FSDP's can be read by
any number of processes, DeepSpeed's by as many as wrote it.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.model_io.model_folder import read_weights, save_model
from training.pretraining.checkpoint import Checkpoints, Write

OPTIMIZER = "optimizer.safetensors"

WHOLE = "the whole model in every process"
_LAYOUTS = {OPTIMIZER: WHOLE, "pytorch_model_fsdp*": "FSDP", "pytorch_model": "DeepSpeed"}  # files in state/: mode

# Keys of config.json that describe how it was written, not the network.
_NOT_ARCHITECTURE = {"architectures", "auto_map", "dtype", "transformers_version", "use_cache", "_name_or_path"}

_ADVICE = "choose another output_dir, or start over with --restart"


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether no process holds the whole model."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def export_model(accelerator: Accelerator, model: Any, tokenizer_dir: str, folder: Path) -> None:
    """Gather the weights from all processes into one Hugging Face directory. Every process must call this."""
    state_dict, model = accelerator.get_state_dict(model), accelerator.unwrap_model(model)
    if model.config.tie_word_embeddings:  # gathered from processes, tied weights are two tensors
        state_dict = {name: weight for name, weight in state_dict.items() if name not in model._tied_weights_keys}
    if accelerator.is_main_process:
        save_model(model, tokenizer_dir, folder, state_dict=state_dict)


def save_sharded(
    accelerator: Accelerator,
    model: Any,
    tokenizer_dir: str,
    checkpoints: Checkpoints,
    progress: dict[str, Any],
) -> None:
    """Write a checkpoint of a sharded model. Every process must call this, and all wait for it."""
    folder = checkpoints.staging_dir(progress["step"])
    if accelerator.is_main_process:
        checkpoints.begin(progress["step"])
    accelerator.wait_for_everyone()
    accelerator.save_state(str(folder / "state"))
    export_model(accelerator, model, tokenizer_dir, folder)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        checkpoints.commit(progress)
    accelerator.wait_for_everyone()


def load_sharded(accelerator: Accelerator, folder: Path) -> None:
    """Restore what `save_sharded` wrote, into the current processes. Every process must call this."""
    accelerator.load_state(str(folder / "state"))
    # `accelerator.step` counts micro-batches. Between steps there are none, and a step may now have more or fewer.
    accelerator.step = 0


def check_layout(accelerator: Accelerator, folder: Path) -> None:
    """Reject a checkpoint whose state this kind of launch cannot read.

    Raises:
        UserError: another kind of launch wrote it, or DeepSpeed with another number of processes.
    """
    state, kinds = folder / "state", {DistributedType.FSDP: "FSDP", DistributedType.DEEPSPEED: "DeepSpeed"}
    kind = kinds.get(accelerator.distributed_type, WHOLE)
    written = next((writer for pattern, writer in _LAYOUTS.items() if any(state.glob(pattern))), kind)
    if written != kind:
        raise UserError(
            f"{folder} was written with {written}, but this launch runs with {kind}; resume with a launch file of the "
            "same kind, or start over with --restart"
        )
    if written == "DeepSpeed":
        processes = len(list(state.glob("pytorch_model/*_optim_states.pt")))
        if processes != accelerator.num_processes:
            raise UserError(
                f"{folder} was written by {processes} processes of DeepSpeed, which cannot resume with "
                f"{accelerator.num_processes}; set --num_processes {processes}, or start over with --restart"
            )


class TrainingState:
    """The weights and the optimizer state of a process that holds the whole model.

    Args:
        model: the unwrapped model, with fp32 weights.
        tokenizer_dir: the tokenizer to put into every checkpoint.
        copied: whether `capture` copies the tensors, so that training can continue while they are written.
    """

    def __init__(
        self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, tokenizer_dir: str | Path, copied: bool
    ):
        self.model, self.optimizer, self.tokenizer_dir, self.copied = model, optimizer, tokenizer_dir, copied
        # For writing in another thread. It shares the modules, but the configuration and generation settings that
        # saving changes are its own.
        self.writer = copy.copy(model)
        self.writer.config = copy.deepcopy(model.config)

    def capture(self) -> Write:
        """Capture the current state; return a function that writes it into a folder."""
        weights = self._host(self._weights())
        states = self._host(self._optimizer_tensors())

        def write(folder: Path) -> None:
            save_model(self.writer, self.tokenizer_dir, folder, state_dict=weights)
            (folder / "state").mkdir()
            save_file(states, folder / "state" / OPTIMIZER, metadata={"class": type(self.optimizer).__name__})

        return write

    def restore(self, folder: Path) -> None:
        """Restore the state from a checkpoint that is known to be complete.

        Raises:
            UserError: the checkpoint has another network or optimizer. Nothing is changed then.
        """
        self._check_architecture(folder)
        weights, own = read_weights(folder), self._weights()
        _check_shapes(folder, {name: weight.shape for name, weight in own.items()}, weights)
        with safe_open(folder / "state" / OPTIMIZER, "pt") as file:
            written_by, kind = file.metadata()["class"], type(self.optimizer).__name__
            # Copied, since Windows deletes no mapped file, and old checkpoints are deleted.
            found = {name: file.get_tensor(name).clone() for name in file.keys()}
        if written_by != kind:
            raise UserError(f"{folder / 'state' / OPTIMIZER} has {written_by}, but the recipe has {kind}; {_ADVICE}")
        states: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in found.items():
            parameter, _, key = name.rpartition("/")
            states.setdefault(parameter, {})[key] = tensor
        packed, expected = self.optimizer.state_dict(), {}
        for names, group in zip(self._names(), packed["param_groups"], strict=True):
            keys = {key for name in names for key in states.get(name, {})}
            expected |= {f"{name}/{key}": own[name].shape for name in names for key in keys}
            numbered = zip(names, group["params"], strict=True)
            packed["state"] |= {number: states[name] for name, number in numbered if name in states}
        _check_shapes(folder / "state", expected, found, broadcast=True)
        with torch.no_grad():  # all checks have passed here
            for name, weight in own.items():
                weight.copy_(weights[name])
        self.optimizer.load_state_dict(packed)

    def _weights(self) -> dict[str, torch.Tensor]:
        """The weights by name, each once: a tied weight only has its first name."""
        seen: dict[int, str] = {}
        tensors = self.model.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in tensors.items() if seen.setdefault(id(tensor), name) == name}

    def _names(self) -> list[list[str]]:
        """Parameter names, by group of the optimizer."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [[names[parameter] for parameter in group["params"]] for group in self.optimizer.param_groups]

    def _optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """The optimizer's tensors by `parameter/name`."""
        numbers = [name for group in self._names() for name in group]
        state = self.optimizer.state_dict()["state"]
        return {f"{numbers[number]}/{key}": tensor for number, kept in state.items() for key, tensor in kept.items()}

    def _host(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors in the memory of the CPU, copied if need be."""
        return {name: tensor.detach().to("cpu", copy=self.copied).contiguous() for name, tensor in tensors.items()}

    def _check_architecture(self, folder: Path) -> None:
        found = type(self.model.config).from_pretrained(folder).to_dict()
        wanted = self.model.config.to_dict()
        differing = [
            f"{key}: {found.get(key)} -> {wanted.get(key)}"
            for key in sorted((found.keys() | wanted.keys()) - _NOT_ARCHITECTURE)
            if found.get(key) != wanted.get(key)
        ]
        if differing:
            raise UserError(
                f"{folder / 'config.json'} does not match the model of the recipe ({', '.join(differing)}); {_ADVICE}"
            )


def _check_shapes(
    folder: Path, expected: dict[str, torch.Size], found: dict[str, torch.Tensor], broadcast: bool = False
) -> None:
    """Reject tensors of other names or shapes. With `broadcast`, shapes that broadcast to the expected one pass."""
    wrong = [f"{name} is missing" for name in expected.keys() - found.keys()]
    wrong += [f"{name} is unknown" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        shape, wanted = found[name].shape, expected[name]
        narrower = len(shape) <= len(wanted) and all(
            size in (1, full) for size, full in zip(reversed(shape), reversed(wanted), strict=False)
        )
        if shape != wanted and not (broadcast and narrower):
            wrong.append(f"{name} is {tuple(shape)} instead of {tuple(wanted)}")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{folder} does not match the model and optimizer of the recipe ({min(wrong)}{more}); {_ADVICE}"
        )
