"""Sampling settings of a model for engines built on llama.cpp, whose defaults are not those of transformers."""

from transformers import GenerationConfig

from training.chat.sampling import DEFAULTS

_DEFAULTS = DEFAULTS | {"min_p": 0.0, "repetition_penalty": 1.0}


def sampling_settings(generation: GenerationConfig) -> dict[str, float]:
    """Every setting by its name in transformers, with transformers' default for those that the model leaves open."""
    given = {name: getattr(generation, name) for name in _DEFAULTS}
    settings = _DEFAULTS | {name: value for name, value in given.items() if value is not None}
    return settings if generation.do_sample else settings | {"temperature": 0}
