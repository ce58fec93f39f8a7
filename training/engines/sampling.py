"""Sampling settings of a model for engines built on llama.cpp, whose defaults are not those of transformers."""

from transformers import GenerationConfig


def sampling_settings(generation: GenerationConfig) -> dict[str, float]:
    """Every setting by its name in transformers, with transformers' default for those that the model leaves open."""
    return {
        "temperature": _or(generation.temperature, 1.0) if generation.do_sample else 0,
        "top_k": _or(generation.top_k, 0),
        "top_p": _or(generation.top_p, 1.0),
        "min_p": _or(generation.min_p, 0.0),
        "repetition_penalty": _or(generation.repetition_penalty, 1.0),
    }


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
