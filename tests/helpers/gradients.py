"""The gradients of a recipe's first step in fp64, on as many processes as run this file.

python tests/helpers/gradients.py GRADIENTS.safetensors --key value ...
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from training.model_io.tokenizers import open_tokenizer
from training.pretraining import loop
from training.pretraining.accelerator import build_accelerator
from training.pretraining.config import PretrainConfig
from training.pretraining.model import build_model
from training.stages.flags import parse


def first_gradients(arguments: list[str], dtype: torch.dtype = torch.double) -> dict[str, torch.Tensor]:
    """The gradients that the optimizer receives, by parameter name."""
    config = parse(PretrainConfig, arguments, "")
    original, loop.build_model = loop.build_model, lambda *given: build_model(*given).to(dtype)
    try:
        accelerator = build_accelerator(config)
        tokenizer = open_tokenizer(config.tokenizer, "tokenizer")
        pretrainer = loop.Pretrainer(config, Path(config.output_dir), tokenizer, accelerator)
    finally:
        loop.build_model = original
    gradients = {}

    def step() -> None:
        if accelerator.sync_gradients:
            for name, parameter in accelerator.unwrap_model(pretrainer.model).named_parameters():
                gradients[name] = parameter.grad.clone()

    pretrainer.optimizer.step = step
    pretrainer.train_step()
    return gradients


if __name__ == "__main__":
    found = first_gradients(sys.argv[2:])
    if torch.distributed.get_rank() == 0:
        save_file(found, sys.argv[1])
    torch.distributed.destroy_process_group()
