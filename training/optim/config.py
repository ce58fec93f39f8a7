"""Recipe keys of `optimizer`."""

import math
from dataclasses import dataclass
from typing import Literal

from training.common.recipe import option


@dataclass
class OptimizerConfig:
    name: Literal["muon", "adamw"] = option(
        "muon", "muon (for the matrices inside the layers, AdamW for the rest) or adamw"
    )
    learning_rate: float = option(0.02, "of the matrices inside the layers (about 0.02 for muon, 0.001 for adamw)")
    embedding_learning_rate: float = option(0.1, "of the token and position embeddings, by AdamW")
    head_learning_rate: float = option(0.004, "of an untied output matrix, by AdamW")
    scalar_learning_rate: float = option(0.01, "of norms, biases and scalars, by AdamW")
    weight_decay: float = option(0.01, "decoupled decay of the matrices inside the layers")
    momentum: float = option(0.95, "Muon's momentum")
    adam_beta1: float = option(0.9, "AdamW's decay of the mean gradient")
    adam_beta2: float = option(0.95, "AdamW's decay of the mean squared gradient")
    schedule: Literal["wsd", "cosine"] = option("wsd", "warm-up, stable, decay; or cosine")
    warmup_steps: int = option(0, "steps over which the learning rates rise from zero")
    decay_fraction: float = option(0.4, "last part of the run over which wsd decays")
    final_fraction: float = option(0.0, "what is left of the learning rates at the last step")

    def __post_init__(self):
        rates = ("learning_rate", "embedding_learning_rate", "head_learning_rate", "scalar_learning_rate")
        for names, fits, words in (
            ((*rates, "weight_decay"), lambda value: value < math.inf, "finite"),
            (("decay_fraction", "final_fraction"), lambda value: value <= 1, "at most 1"),
            (("momentum", "adam_beta1", "adam_beta2"), lambda value: value < 1, "below 1"),
        ):
            for name in names:
                value = getattr(self, name)
                if not (value >= 0 and fits(value)):
                    raise ValueError(f"'optimizer.{name}' must be at least 0 and {words}, not {value}")
        if self.warmup_steps < 0:
            raise ValueError(f"'optimizer.warmup_steps' must be at least 0, not {self.warmup_steps}")
