"""The recipe keys under `optimizer`."""

from dataclasses import dataclass
from typing import Literal

from training.stages.recipe import option


@dataclass
class OptimizerConfig:
    """The optimizer, a peak learning rate for each kind of parameter, and the schedule that all of them follow."""

    name: Literal["muon", "adamw"] = option(
        "muon", "optimizer of the matrices inside the layers; all other parameters use AdamW"
    )
    learning_rate: float = option(
        0.02, "peak learning rate of the matrices inside the layers: about 0.02 for muon, 0.001 for adamw", at_least=0
    )
    embedding_learning_rate: float = option(0.1, "peak learning rate of the token and position embeddings", at_least=0)
    head_learning_rate: float = option(0.004, "peak learning rate of an untied output matrix", at_least=0)
    scalar_learning_rate: float = option(0.01, "peak learning rate of norms, biases and scalars", at_least=0)
    weight_decay: float = option(0.01, "decoupled weight decay of the matrices inside the layers", at_least=0)
    momentum: float = option(0.95, "momentum of Muon", at_least=0, below=1)
    adam_beta1: float = option(0.9, "AdamW's decay rate of the mean gradient", at_least=0, below=1)
    adam_beta2: float = option(0.95, "AdamW's decay rate of the mean squared gradient", at_least=0, below=1)
    schedule: Literal["wsd", "cosine"] = option(
        "wsd", "learning-rate schedule; wsd is warm-up, constant, linear decay"
    )
    warmup_steps: int = option(0, "optimizer steps over which the rates rise from zero", at_least=0)
    decay_fraction: float = option(0.4, "fraction of the run, at its end, over which wsd decays", at_least=0, at_most=1)
    final_fraction: float = option(0.0, "fraction of the peak rates left at the last step", at_least=0, at_most=1)
