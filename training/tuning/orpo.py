"""ORPO trainer: TRL's experimental one, with exact accumulation, and a count of records without room to answer."""

import warnings
from typing import Any

import torch
from datasets import Dataset
from trl.import_utils import TRLExperimentalWarning

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.model_io.context_length import context_length
from training.tuning.lengths import check_kept

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TRLExperimentalWarning)  # the help of `scratch orpo` states this
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class ScratchORPOTrainer(ORPOTrainer):
    """TRL's ORPOTrainer (Hong et al., https://arxiv.org/abs/2403.07691), which would train on empty answers.

    The loss is a mean over the tokens of the chosen answers with their prompts, and a mean over the pairs. TRL takes
    both over each batch, and then the mean over the accumulated batches, in which a token of a short batch counts more.
    Here they are means over all accumulated batches of all processes: accumulation equals the larger batch.

    It is experimental in TRL: it may change or go with a minor release.

    Raises:
        UserError: no record is left after truncation, or some exceed the model's positions.
    """

    progress_figures = {"rewards/margins": "margin {:.3f}", "rewards/accuracies": "accuracy {:.0%}"}
    loss_label = "ORPO loss (lower is better)"
    # Factors of the means over tokens and pairs of a batch, with which their means over batches are exact.
    factors = (1.0, 1.0)

    def __init__(self, *, model: Any, args: ORPOConfig, **others: Any):
        args.remove_unused_columns = False  # its collator needs all columns; TRL would set this with a warning
        super().__init__(model=model, args=args, **others)
        self.train_dataset = self.drop_empty(self.train_dataset, "train", context_length(model.config))
        self.eval_dataset = self.drop_empty(self.eval_dataset, "eval", context_length(model.config))

    def drop_empty(self, data: Any, name: str, positions: int | None) -> Any:
        """The records in which both answers keep a token after truncation to `max_length`.

        Args:
            data: a tokenized split; a stream, or None, is returned as it is.
            name: of the split.
            positions: of the model.
        """
        if not isinstance(data, Dataset):
            return data
        # The labels of an answer are IGNORE_INDEX for the tokens of its prompt.
        pairs = list(zip(data["chosen_labels"], data["rejected_labels"]))
        kept = [number for number, pair in enumerate(pairs) if all(labels[-1] != IGNORE_INDEX for labels in pair)]
        lengths = [max(map(len, pairs[number])) for number in kept]
        check_kept(lengths, len(data), self.max_length, positions, name)
        return data.select(kept)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Tokens and pairs of the accumulated batches of all processes, (2,)."""
        counts = sum((count(batch) for batch in batch_samples), torch.zeros(2)).to(device)
        everywhere = self.args.average_tokens_across_devices
        return self.accelerator.reduce(counts) if everywhere else counts * self.accelerator.num_processes

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch of pairs, of which the Trainer takes the mean over accumulated batches and processes."""
        batches = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        self.factors = count(inputs).to(num_items_in_batch) * batches / num_items_in_batch
        try:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self.factors = (1.0, 1.0)  # for validation

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """TRL's log-probabilities and logits; the loss on the chosen answers as a part of that of all batches."""
        outputs = super().concatenated_forward(model, batch)
        return *outputs[:4], outputs[4] * self.factors[0], *outputs[5:]

    def odds_ratio_loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """TRL's losses of the pairs, (pairs,), as parts of the mean over all batches; and its figures for the log."""
        losses, *figures = super().odds_ratio_loss(chosen, rejected)
        return losses * self.factors[1], *figures


def count(batch: dict[str, Any]) -> torch.Tensor:
    """Predicted tokens of the chosen answers with their prompts, and pairs, (2,)."""
    mask = batch["chosen_attention_mask"]  # (pairs, seq); no token before the first one predicts it
    return torch.tensor([float(mask[:, 1:].sum()), float(len(mask))])
