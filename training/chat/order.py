"""The order of the samples as a function of seed and epoch, so that a resumed run sees those it would have seen."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class OrderByEpoch(TrainerCallback):
    """Tells the sampler which epoch begins.

    The Trainer by itself tells it to those it reaches: a sampler that groups by length draws from the generator that
    dropout draws from too, and comes out otherwise after an interruption; and of several processes one that goes on
    reaches no sampler at all, for there it lies under three wrappers.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, train_dataloader: Any, **_: Any
    ) -> None:
        batches = train_dataloader.batch_sampler
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        sampler, epoch = getattr(batches, "sampler", None), int(state.epoch)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        elif hasattr(sampler, "generator"):
            sampler.generator = torch.Generator().manual_seed(args.seed + epoch)
