"""The optimizer of a model: which parameters follow which rule, at which learning rate."""

import torch
from torch import nn

from training.common.device import has_bf16
from training.optim.config import OptimizerConfig
from training.optim.muon import MuonAdamW


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """One optimizer for all trainable parameters, in four groups with their own learning rates.

    Matrices inside the layers follow Muon or AdamW, by `config.name`, and alone have weight decay. Embeddings, the
    output matrix and scalars (all below two dimensions) follow AdamW. Each group's peak rate is its `initial_lr`.
    """
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
