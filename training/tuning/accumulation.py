"""Exact gradient accumulation for TRL's trainers of preferences: several batches equal one larger batch.

TRL takes the mean over the tokens or records of each batch, and the Trainer the mean over accumulated batches and
processes. A token of a short batch would then weigh more than one of a long batch, and so would a record of a small
last batch of an epoch. Here every mean is multiplied by the share of its batch, which makes the total exact.
"""

from typing import Any

import torch


class ExactAccumulation:
    """Mixin that counts what the accumulated batches hold; it comes before TRL's trainer in the list of bases."""

    def count(self, batch: dict[str, torch.Tensor]) -> list[float]:
        """The numbers of items that the means of a batch are taken over, such as tokens and pairs; here its records."""
        return [len(batch["input_ids"])]

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """The counts of all accumulated batches of all processes; the Trainer passes them to `compute_loss`."""
        total = torch.tensor([self.count(batch) for batch in batch_samples], device=device).sum(0)
        everywhere = self.args.average_tokens_across_devices
        return self.accelerator.reduce(total) if everywhere else total * self.accelerator.num_processes

    def factors(self, batch: dict[str, torch.Tensor], total: torch.Tensor | None) -> list[float]:
        """For each count, the factor of the batch's mean.

        Args:
            total: the counts of all batches; None in validation, where the factors are 1.
        """
        counts = self.count(batch)
        if total is None:
            return [1.0] * len(counts)
        batches = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        return [count * batches / max(whole, 1) for count, whole in zip(counts, total.tolist(), strict=True)]


class ExactMean(ExactAccumulation):
    """The mixin for a trainer whose loss is one mean over the records of a batch."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, of which the Trainer takes the mean over batches and processes; with the outputs if requested."""
        (factor,) = self.factors(inputs, num_items_in_batch)
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return (found[0] * factor, found[1]) if return_outputs else found * factor
