"""TRL's ORPOTrainer, which leaves out records whose prompt leaves no room for an answer, and counts them."""

import warnings
from typing import Any

from datasets import Dataset
from trl.import_utils import TRLExperimentalWarning

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.tuning.dpo import check_kept
from training.tuning.lengths import max_positions

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TRLExperimentalWarning)  # the help of `scratch orpo` says so
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer



class OddsRatioTrainer(ORPOTrainer):
    """TRL's trainer, which would train on empty answers.

    Raises:
        UserError: no record is left, or some exceed the model's positions.
    """

    def __init__(self, *, model: Any, args: ORPOConfig, **others: Any):
        args.remove_unused_columns = False  # as its collator needs it; TRL would say that it does so itself
        super().__init__(model=model, args=args, **others)
        self.train_dataset = self.leave_out(self.train_dataset, "train", max_positions(model))
        self.eval_dataset = self.leave_out(self.eval_dataset, "eval", max_positions(model))

    def leave_out(self, data: Any, name: str, positions: int | None) -> Any:
        """The records that have both answers after `max_length` has cut them.

        Args:
            data, name: a tokenised split, and what it is called; one of unknown length, or none, is not looked at.
            positions: of the model.
        """
        if not isinstance(data, Dataset):
            return data
        pairs = list(zip(data["chosen_labels"], data["rejected_labels"]))  # of each answer IGNORE_INDEX for its prompt
        kept = [number for number, pair in enumerate(pairs) if all(labels[-1] != IGNORE_INDEX for labels in pair)]
        lengths = [max(map(len, pairs[number])) for number in kept]
        check_kept(lengths, len(data), self.max_length, positions, name)
        return data.select(kept)
