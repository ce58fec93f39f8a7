"""The order of the samples as a function of seed and epoch, so that a resumed run sees those it would have seen."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class OrderByEpoch(TrainerCallback):
    """Gives a sampler that has not one, such as that which groups by length, a generator seeded by the epoch.

    By itself it draws from the generator that dropout draws from too: it comes out otherwise when an interrupted run
    goes on, and differently in every process of several. Samplers that are told the epoch are left alone.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, train_dataloader: Any, **_: Any
    ) -> None:
        batches = train_dataloader.batch_sampler
        while hasattr(batches, "batch_sampler"):  # Accelerate wraps it, and once more to skip
            batches = batches.batch_sampler
        sampler = getattr(batches, "sampler", None)
        if hasattr(sampler, "generator") and not hasattr(sampler, "set_epoch"):
            sampler.generator = torch.Generator().manual_seed(args.seed + int(state.epoch))
