"""How the next token is drawn: what the model's own `generation_config.json` says, but for what the user does."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.common.recipe import option

if TYPE_CHECKING:
    from transformers import GenerationConfig

LONGEST_ANSWER = 512  # tokens, where the model names no length
DEFAULTS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # of transformers, where neither model nor user says


@dataclass
class Sampling:
    """None leaves a setting to the model.

    Raises:
        ValueError: out of range.
    """

    temperature: float | None = option(None, "0 always takes the likeliest token; above 1 the unlikely ones come up")
    top_k: int | None = option(None, "draw from so many of the likeliest tokens; 0 for all")
    top_p: float | None = option(None, "draw from the likeliest tokens that have this probability together; 1 for all")
    repetition_penalty: float | None = option(None, "above 1 makes tokens that were there already less likely")
    max_new_tokens: int | None = option(None, "tokens an answer may take")
    seed: int | None = option(None, "the same answers again to the same messages")

    def __post_init__(self):
        ranges = {
            "temperature": (lambda value: 0 <= value < float("inf"), "0 or more"),
            "top_k": (lambda value: value >= 0, "0 or more"),
            "top_p": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
            "repetition_penalty": (lambda value: 0 < value < float("inf"), "more than 0"),
            "max_new_tokens": (lambda value: value >= 1, "1 or more"),
            "seed": (lambda value: 0 <= value < 2**63, "0 or more"),
        }
        for key, (holds, wanted) in ranges.items():
            value = getattr(self, key)
            if value is not None and not holds(value):
                raise ValueError(f"'{key}' is {wanted}, not {value}")

    def applied(self, model_settings: "GenerationConfig") -> "GenerationConfig":
        """A model's settings with these in their place, for one answer at a time."""
        settings = copy.deepcopy(model_settings)
        settings.num_beams = settings.num_return_sequences = 1  # of several at once none can be streamed
        given = {key: value for key, value in vars(self).items() if value is not None and key != "seed"}
        if given.keys() & {"temperature", "top_k", "top_p"}:
            settings.do_sample = self.temperature != 0
        for key, value in given.items():
            setattr(settings, key, value)
        settings.max_new_tokens = settings.max_new_tokens or LONGEST_ANSWER
        return settings


def describe(settings: "GenerationConfig") -> str:
    """What holds, in a line."""
    drawn = "always the likeliest token"
    if settings.do_sample:
        values = {key: getattr(settings, key) for key in DEFAULTS}
        drawn = ", ".join(f"{key} {DEFAULTS[key] if value is None else value}" for key, value in values.items())
    if settings.repetition_penalty not in (None, 1):
        drawn += f", repetition_penalty {settings.repetition_penalty}"
    return f"{drawn}, max_new_tokens {settings.max_new_tokens}"
