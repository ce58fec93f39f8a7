"""DPO trainer: TRL's, which learns from pairs of a chosen and a rejected answer, with our checks."""

from typing import Any

import torch
from trl import DPOTrainer

from training.tuning.accumulation import ExactAccumulation
from training.tuning.preference_checks import PreferenceChecks


class ScratchDPOTrainer(PreferenceChecks, ExactAccumulation, DPOTrainer):
    """TRL's DPOTrainer (Rafailov et al., https://arxiv.org/abs/2305.18290). For errors see `PreferenceChecks`."""

    def count(self, batch: dict[str, torch.Tensor]) -> list[float]:
        """Tokens of the chosen answers, over which the loss `sft` is a mean, and pairs."""
        mask = batch["completion_mask"]  # (2 * pairs, seq), the chosen answers first
        pairs = len(mask) // 2
        return [float(mask[:pairs, 1:].sum()), pairs]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The sum of losses, each weighted by the share of the batch; with the outputs if requested."""
        tokens, pairs = self.factors(inputs, num_items_in_batch)
        weights, kinds = self.loss_weights, self.loss_types
        self.loss_weights = [
            weight * (tokens if kind == "sft" else pairs) for weight, kind in zip(weights, kinds, strict=True)
        ]
        try:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self.loss_weights = weights
