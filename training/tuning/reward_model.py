"""Reward model trainer: TRL's, with our encoding, a count of dropped pairs, and the accuracy on held-out ones."""

import copy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from training.common.errors import UserError
from training.common.estimates import proportion
from training.model_io.context_length import context_length
from training.tuning.accumulation import ExactMean
from training.tuning.dataset_formats import columns_of
from training.tuning.encoding import check_lengths, encode_dataset, encode_whole_pairs


class ScratchRewardTrainer(ExactMean, RewardTrainer):
    """TRL's RewardTrainer, a Bradley-Terry model. It drops pairs that exceed `max_length`, which are counted here.

    Raises:
        UserError: no pair is left, or some exceed the model's positions.
    """

    loss_label = "Bradley-Terry loss (nats per pair; lower is better)"

    def __init__(self, *, model: Any, **others: Any):
        self.context_length = context_length(model.config)
        super().__init__(model=model, **others)

    def _prepare_dataset(
        self, dataset: Any, processing_class: PreTrainedTokenizerBase, args: RewardConfig, dataset_name: str
    ) -> Any:
        """Encode the pairs, and prepare them as TRL does, but in two passes, so that those dropped by `max_length` are
        counted."""
        if "chosen_ids" not in columns_of(dataset):
            dataset = encode_dataset(dataset, encode_whole_pairs, args, dataset_name, tokenizer=processing_class)
        if not isinstance(dataset, Dataset):  # a stream, of unknown length
            return super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        whole_pairs = copy.copy(args)
        whole_pairs.max_length = None
        whole = super()._prepare_dataset(dataset, processing_class, whole_pairs, dataset_name)
        kept = super()._prepare_dataset(whole, processing_class, args, dataset_name)
        if len(kept) < len(whole):
            print(
                f"reward: {dataset_name}: {len(whole) - len(kept):,} of {len(whole):,} pairs exceed max_length "
                f"{args.max_length} and are dropped"
            )
        if not len(kept):
            raise UserError(f"'max_length': no pair of {dataset_name} fits in {args.max_length} tokens; raise it")
        lengths = [max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) for pair in kept]
        remedy = f"set max_length: {self.context_length} to drop them"
        check_lengths(lengths, self.context_length, "pairs", dataset_name, remedy)
        return kept

    def after_training(self, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """The accuracy on held-out pairs: how often the chosen answer scores higher, with its standard error.

        TRL logs a mean over batches, in which a smaller last batch counts as much as the others.
        """
        if self.eval_dataset is None:
            print("reward: no pairs are held out for an accuracy; set test_split_size: 0.1 and eval_strategy: epoch")
            return {}, []
        correct: list[bool] = []
        self.model.eval()
        for batch in self.get_eval_dataloader():
            with torch.no_grad(), self.accelerator.autocast():
                scores = self.model(**self._prepare_inputs(batch), use_cache=False).logits  # (2 * pairs, 1)
            chosen, rejected = scores.squeeze(-1).chunk(2)
            correct += self.accelerator.gather_for_metrics(chosen > rejected).tolist()
        accuracy = proportion(correct, chance=0.5)
        stderr = accuracy.stderr or 0.0
        print(f"reward: accuracy {accuracy.value:.1%} ± {stderr:.1%} on {len(correct):,} held-out pairs")
        return {"accuracy": accuracy.to_json()}, []
