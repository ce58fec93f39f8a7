"""ORPO trainer: TRL's experimental one, with a count of the records whose prompt leaves no room for an answer."""

import warnings
from typing import Any

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

    It is experimental in TRL: it may change or go with a minor release.

    Raises:
        UserError: no record is left after truncation, or some exceed the model's positions.
    """

    progress_figures = {"rewards/margins": "margin {:.3f}", "rewards/accuracies": "accuracy {:.0%}"}

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
