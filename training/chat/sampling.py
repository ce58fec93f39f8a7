"""Sampling settings of chat and completions: the user's, and for the rest the model's own `generation_config.json`."""

import copy
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from training.stages.recipe import option

if TYPE_CHECKING:
    from transformers import GenerationConfig

DEFAULT_MAX_NEW_TOKENS = 512  # if the model sets no length
DEFAULTS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # of transformers, if neither model nor user sets them


@dataclass
class Sampling:
    """Settings that the user may change; None leaves a setting to the model."""

    temperature: float | None = option(
        None, "randomness of sampling; 0 always takes the most likely token, above 1 unlikely tokens gain", at_least=0
    )
    top_k: int | None = option(None, "number of most likely tokens to sample from; 0 for all", at_least=0)
    top_p: float | None = option(
        None, "total probability of the most likely tokens to sample from; 1 for all", above=0, at_most=1
    )
    min_p: float | None = option(
        None, "probability below which tokens are left out, as a fraction of the highest", at_least=0, at_most=1
    )
    repetition_penalty: float | None = option(
        None, "factor against repetition; above 1, tokens that occurred become less likely", above=0
    )
    max_new_tokens: int | None = option(None, "maximum number of tokens to generate", at_least=1)
    seed: int | None = option(None, "random seed; the same input then gets the same output", at_least=0, below=2**63)

    @classmethod
    def of(cls, options: "Sampling") -> "Sampling":
        """The sampling settings among the options of a command."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    def as_request(self) -> dict[str, float]:
        """The settings that are set, as fields of OpenAI's interface."""
        given = {key: value for key, value in vars(Sampling.of(self)).items() if value is not None}
        return {"max_tokens" if key == "max_new_tokens" else key: value for key, value in given.items()}

    def set_seed(self) -> None:
        """Set torch's random seed, if there is one."""
        if self.seed is not None:
            import torch

            torch.manual_seed(self.seed)

    def applied(self, model_settings: "GenerationConfig") -> "GenerationConfig":
        """A copy of the model's settings, with these instead of its own, for a single streamed answer."""
        settings = copy.deepcopy(model_settings)
        settings.num_beams = settings.num_return_sequences = 1  # several sequences cannot be streamed
        own = {field.name: getattr(self, field.name) for field in fields(Sampling) if field.name != "seed"}
        given = {key: value for key, value in own.items() if value is not None}
        if given.keys() & {"temperature", "top_k", "top_p", "min_p"}:
            settings.do_sample = self.temperature != 0
        for key, value in given.items():
            setattr(settings, key, value)
        settings.max_new_tokens = settings.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
        return settings


def describe(settings: "GenerationConfig") -> str:
    """One-line summary of the sampling settings."""
    drawn = "always the most likely token"
    if settings.do_sample:
        values = {key: getattr(settings, key) for key in DEFAULTS}
        drawn = ", ".join(f"{key} {DEFAULTS[key] if value is None else value}" for key, value in values.items())
    if settings.repetition_penalty not in (None, 1):
        drawn += f", repetition_penalty {settings.repetition_penalty}"
    return f"{drawn}, max_new_tokens {settings.max_new_tokens}"
