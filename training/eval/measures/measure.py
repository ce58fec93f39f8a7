"""The interface of a measure, and the model it is run on.

A measure is one class in this folder (or `harness/tasks.py`), named after a key of the recipe. `scratch evaluate` calls
its methods in this order: `prepare` once, `check` for each model, `load` and `write` once, `run` for each model.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from training.eval.measures.config import EvaluateConfig
from training.eval.measures.figures import MeasureResult
from training.machine.threads import follow_load_in


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate, before its weights are loaded.

    Attributes:
        key: of the recipe that names it, such as `models.base`.
        folder: of the model, or its name on the Hub.
        context: tokens it may see at once.
    """

    key: str
    folder: str
    tokenizer: PreTrainedTokenizerBase
    context: int


@dataclass(frozen=True)
class LoadedModel(Candidate):
    """A model to evaluate, with its weights.

    Attributes:
        batch_size: sequences per forward pass.
        bf16: whether forward passes run under bfloat16 autocast.
    """

    model: PreTrainedModel
    batch_size: int = 4
    bf16: bool = False

    @cached_property
    def generation_model(self) -> PreTrainedModel:
        """The same model for generating. Generation is bound by memory: with bf16, weights and cache take half."""
        dtype = torch.bfloat16 if self.bf16 else "auto"
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=dtype).to(self.model.device).eval()
        follow_load_in(model)
        return model


class Measure(ABC):
    """One measure of a recipe. The constructor reads nothing."""

    kind: ClassVar[str]  # the recipe's key

    def __init__(self, config: EvaluateConfig):
        self.config = config

    @classmethod
    def is_requested(cls, config: EvaluateConfig) -> bool:
        """Whether the recipe asks for this measure."""
        return bool(getattr(config, cls.kind))

    @abstractmethod
    def prepare(self) -> None:
        """Read and check the held-out records. Raises UserError, before any model is loaded."""

    def check(self, candidate: Candidate) -> None:
        """Reject a model that cannot be measured. Raises UserError, before any model is loaded."""

    def inputs(self) -> dict[str, str]:
        """Files and folders that the results depend on, by the recipe key that names them."""
        return {}

    def conditions(self) -> dict[str, str]:
        """Conditions of the measurement, for the page of results."""
        return {}

    def remarks(self) -> list[str]:
        """Notes below the table of results."""
        return []

    def load(self, candidates: list[Candidate]) -> None:
        """Load whatever takes time; called only if there is work to do. Raises UserError."""

    def write(self, folder: Path, final: Path) -> None:
        """Write files that repeat the measure into the folder of results, which will be renamed to `final`."""

    @abstractmethod
    def run(self, model: LoadedModel) -> MeasureResult:
        """Measure one model."""
