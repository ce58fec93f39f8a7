"""Checkpoints that other projects wrote with `torch.save`, read without running any code that a file may hold."""

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.common.errors import UserError, one_line

_WEIGHTS = ("model", "model_state_dict", "state_dict")  # keys under which training scripts keep the weights
_PREFIXES = ("_orig_mod.", "module.")  # of torch.compile and of DistributedDataParallel
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


@dataclass
class Checkpoint:
    """The weights of a checkpoint by name, and what its file holds beside them.

    A reader takes each tensor once, with the shape that it expects, and at the end calls `finish`.

    Attributes:
        file: for errors.
        tensors: those not taken yet.
        beside: everything else in the file, such as nanoGPT's `model_args`.
    """

    file: Path
    tensors: dict[str, torch.Tensor]
    beside: dict[str, Any] = field(default_factory=dict)

    def error(self, problem: str) -> UserError:
        return UserError(f"'model': {self.file}: {problem}")

    def names(self) -> set[str]:
        """The names of the tensors, with N for each number of a layer."""
        return {numbered(name) for name in self.tensors}

    def ignore(self, pattern: str) -> None:
        """Drop tensors that a model computes, such as masks."""
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if not re.search(pattern, name)}

    def shape(self, name: str, dimensions: int = 2) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            UserError: there is no such tensor, or it has another number of dimensions.
        """
        if name not in self.tensors:
            raise self.error(f"{name} is missing; save the whole state_dict of the model")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dimensions:
            raise self.error(f"{name} has shape {shape}, but {dimensions} dimensions are expected")
        return shape

    def layers(self, prefix: str) -> int:
        """The number of layers, by the names that begin with a prefix and a number."""
        found = {name.removeprefix(prefix).partition(".")[0] for name in self.tensors if name.startswith(prefix)}
        return sum(number.isdecimal() for number in found)

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Remove a tensor and return it.

        Raises:
            UserError: it is missing, has another shape, or is not of floating point.
        """
        if self.shape(name, len(shape)) != shape:
            raise self.error(f"{name} has shape {tuple(self.tensors[name].shape)}, which contradicts {shape}")
        if not self.tensors[name].is_floating_point():
            raise self.error(f"{name} is {self.tensors[name].dtype}, not floating point; quantized weights do not load")
        return self.tensors.pop(name)

    def take_output(self, name: str, embedding: torch.Tensor) -> torch.Tensor | None:
        """Remove the output matrix; None if it is the embedding, as tied weights are."""
        if name not in self.tensors:
            return None
        head = self.take(name, *embedding.shape)
        return None if torch.equal(head, embedding) else head

    def finish(self, project: str) -> None:
        """Raise UserError for a tensor that no reader took."""
        if self.tensors:
            more = f" (and {len(self.tensors) - 1} more)" if len(self.tensors) > 1 else ""
            raise self.error(f"{min(self.tensors)} is not a tensor of {project}{more}, so it would be lost")


def numbered(name: str) -> str:
    """The name of a tensor with N for each number of a layer."""
    return re.sub(r"\.\d+(?=\.)", ".N", name)


def read_pickled(file: Path) -> Checkpoint:
    """A checkpoint of `torch.save`, with `weights_only=True`: tensors, texts, numbers and their containers.

    Raises:
        UserError: the file holds anything else, which is named and not run; it is damaged, or holds no weights.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                    raise UserError(f"'model': {file} is a compressed archive; give the file that torch.save wrote")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # of any class, where a file holds something else than torch expects
        refused = _REFUSED.search(str(error))
        if refused:
            raise UserError(
                f"'model': {file} holds {refused[1]}, and unpickling it would run code; in its own project, save it "
                "again with tensors, numbers and texts alone"
            ) from None
        reason = one_line(error).partition(". ")[0][:200]
        raise UserError(f"'model': {file} is damaged, or not a checkpoint ({reason}); copy it again") from None
    if not isinstance(content, dict):
        raise UserError(f"'model': {file} holds a {type(content).__name__}, not a state_dict; save model.state_dict()")
    wrapper = next((key for key in _WEIGHTS if isinstance(content.get(key), dict)), None)
    weights, beside = (content, {}) if wrapper is None else (content[wrapper], content)
    return Checkpoint(file, _named_tensors(file, weights), {key: beside[key] for key in beside if key != wrapper})


def _named_tensors(file: Path, weights: dict[Any, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, without the prefixes of wrappers around the model."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UserError(f"'model': {file}: {name!r:.80} is not a tensor; save model.state_dict()")
        while name.startswith(_PREFIXES):
            name = name.partition(".")[2]
        if not _is_whole(tensor):
            raise UserError(f"'model': {file}: {name} is not a plain tensor in memory; save it dense, on the CPU")
        tensors[name] = tensor.detach()
    if not tensors:
        raise UserError(f"'model': {file} holds no tensors; save model.state_dict()")
    return tensors


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether each element has its own place in memory. A view of few elements may claim any size."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
