"""Which parameter learns by which rule and how fast: the parameter groups, in one place."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from training.engine.device import has_bf16
from training.optim.muon import MuonAdamW
from training.recipe import option


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


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """One optimizer for every trainable parameter. Each group keeps its peak rate in `initial_lr`."""
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "embeddings": [], "head": [], "scalars": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            groups["scalars"].append(parameter)
        elif ".layers." in name:
            groups["matrices"].append(parameter)
        elif "embed_" in name:
            groups["embeddings"].append(parameter)
        else:
            groups["head"].append(parameter)
    settings = {
        "matrices": {
            "lr": config.learning_rate,
            "weight_decay": config.weight_decay,
            "use_muon": config.name == "muon",
        },
        "embeddings": {"lr": config.embedding_learning_rate},
        "head": {"lr": config.head_learning_rate},
        "scalars": {"lr": config.scalar_learning_rate},
    }
    param_groups = [{"params": groups[name], "weight_decay": 0.0, **settings[name]} for name in groups if groups[name]]
    for group in param_groups:
        group["initial_lr"] = group["lr"]
    betas = (config.adam_beta1, config.adam_beta2)
    if config.name == "adamw":
        for group in param_groups:
            group.pop("use_muon", None)
        return torch.optim.AdamW(param_groups, betas=betas, fused=True)
    polar_dtype = torch.bfloat16 if has_bf16(next(model.parameters()).device) else torch.float32
    return MuonAdamW(param_groups, momentum=config.momentum, betas=betas, polar_dtype=polar_dtype)
