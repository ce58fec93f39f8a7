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
        for name in ("learning_rate", "embedding_learning_rate", "head_learning_rate", "scalar_learning_rate"):
            self._check(name, most=math.inf)
        self._check("weight_decay", most=math.inf)
        for name in ("decay_fraction", "final_fraction"):
            self._check(name, most=1)
        for name in ("momentum", "adam_beta1", "adam_beta2"):
            self._check(name, below=1)
        if self.warmup_steps < 0:
            raise ValueError(f"'optimizer.warmup_steps' must be at least 0, not {self.warmup_steps}")

    def _check(self, name: str, most: float = 1, below: float = math.inf) -> None:
        value = getattr(self, name)
        if not (0 <= value <= most and value < below):
            limit = f"below {below}" if below < math.inf else "finite" if most == math.inf else f"at most {most}"
            raise ValueError(f"'optimizer.{name}' must be at least 0 and {limit}, not {value}")


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
