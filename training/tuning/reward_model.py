"""TRL's RewardTrainer, which counts the pairs it leaves out, and reports its accuracy on held-out ones."""

import copy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from training.common.errors import UserError
from training.common.estimates import proportion
from training.tuning.lengths import check_positions, max_positions


class JudgeTrainer(RewardTrainer):
    """TRL's trainer. It leaves out pairs that exceed `max_length`, which are counted here; all else is TRL's.

    Raises:
        UserError: no pair is left, or some exceed the model's positions.
    """

    @classmethod
    def options(cls, recipe: Any, columns: list[str]) -> dict[str, Any]:
        """None. Raises UserError: pairs are held out for nothing."""
        if recipe.datasets.test_split_size and recipe.training.eval_strategy == "no":
            raise UserError(
                f"{recipe.where}: 'test_split_size' holds out pairs that nobody judges; give eval_strategy: epoch too"
            )
        return {}

    def __init__(self, *, model: Any, **others: Any):
        self.max_positions = max_positions(model)
        super().__init__(model=model, **others)

    def _prepare_dataset(
        self, dataset: Any, processing_class: PreTrainedTokenizerBase, args: RewardConfig, dataset_name: str
    ) -> Any:
        if not isinstance(dataset, Dataset):  # a stream, of unknown length
            return super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        whole_pairs = copy.copy(args)
        whole_pairs.max_length = None
        whole = super()._prepare_dataset(dataset, processing_class, whole_pairs, dataset_name)
        kept = super()._prepare_dataset(whole, processing_class, args, dataset_name)
        if len(kept) < len(whole):
            print(
                f"reward: {dataset_name}: {len(whole) - len(kept):,} of {len(whole):,} pairs exceed max_length "
                f"{args.max_length} and are left out"
            )
        if not len(kept):
            raise UserError(f"'max_length': no pair of {dataset_name} is within {args.max_length} tokens; raise it")
        lengths = [max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) for pair in kept]
        cure = f"give max_length: {self.max_positions}, and they are left out"
        check_positions(lengths, self.max_positions, "pairs", dataset_name, cure)
        return kept

    def conclude(self, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """The share of held-out pairs in which the chosen answer scores higher, with its standard error."""
        if self.eval_dataset is None:
            print("reward: no pairs are held out (test_split_size: 0.1, eval_strategy: epoch), so none are judged")
            return {}, []
        right: list[bool] = []
        self.model.eval()
        for batch in self.get_eval_dataloader():
            with torch.no_grad(), self.accelerator.autocast():
                scores = self.model(**self._prepare_inputs(batch), use_cache=False).logits  # (2 * pairs, 1)
            chosen, rejected = scores.squeeze(-1).chunk(2)
            right += self.accelerator.gather_for_metrics(chosen > rejected).tolist()
        accuracy = proportion(right, chance=0.5)
        stderr = accuracy.stderr or 0.0
        print(f"reward: of {len(right):,} held-out pairs {accuracy.value:.1%} ± {stderr:.1%} are judged right")
        return {"accuracy": accuracy.to_json()}, []
