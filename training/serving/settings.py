"""Settings of one answer: sampling, as in `scratch chat`, and what else a request to the server can ask for."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.chat.sampling import Sampling
from training.stages.recipe import option

if TYPE_CHECKING:
    from transformers import GenerationConfig

SMALLEST_TEMPERATURE = 1e-4  # logits divided by less overflow; it is greedy in effect


@dataclass(kw_only=True)
class AnswerSettings(Sampling):
    """Settings of one answer; None leaves a setting to the model's `generation_config.json`."""

    frequency_penalty: float = option(
        0.0, "subtracted from a logit for each time the answer has the token", at_least=-2, at_most=2
    )
    presence_penalty: float = option(
        0.0, "subtracted from a logit if the answer has the token", at_least=-2, at_most=2
    )
    logit_bias: dict[int, float] = option(dict, "token id: number that is added to its logit, -100 to 100")
    stop: list[str] = option(list, "texts before which the answer ends")
    top_logprobs: int | None = option(None, "number of most likely tokens to report for each token", at_least=0)

    def applied(self, model_settings: "GenerationConfig") -> "GenerationConfig":
        """A copy of the model's settings, with these instead of its own."""
        settings = super().applied(model_settings)
        if settings.do_sample and settings.temperature is not None and settings.temperature < SMALLEST_TEMPERATURE:
            settings.do_sample = False
        if self.logit_bias:
            settings.sequence_bias = {(token,): float(bias) for token, bias in self.logit_bias.items()}
        return settings

    def numbered(self, number: int) -> "AnswerSettings":
        """These settings for one of several answers to a request, each with a seed of its own."""
        seed = None if self.seed is None else (self.seed + number) % 2**63
        return dataclasses.replace(self, seed=seed)
