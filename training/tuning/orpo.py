"""ORPO trainer: TRL's experimental one, with a count of the records whose prompt leaves no room for an answer."""

import warnings
from typing import Any

from datasets import Dataset
from trl.import_utils import TRLExperimentalWarning

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.model_io.context_length import context_length
from training.tuning.dataset_formats import Record, encode_dataset, encode_pairs
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

    def __init__(
        self,
        *,
        model: Any,
        args: ORPOConfig,
        train_dataset: Any,
        eval_dataset: Any,
        processing_class: Any,
        **others: Any,
    ):
        args.remove_unused_columns = False  # its collator needs all columns; TRL would set this with a warning
        splits = {"train": train_dataset} | ({"eval": eval_dataset} if eval_dataset is not None else {})
        train, *held_out = [
            encode_dataset(data, encode_pairs, args, name, tokenizer=processing_class) for name, data in splits.items()
        ]
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=held_out[0] if held_out else None,
            processing_class=processing_class,
            **others,
        )
        self.train_dataset = self.drop_empty(self.train_dataset, "train", context_length(model.config))
        self.eval_dataset = self.drop_empty(self.eval_dataset, "eval", context_length(model.config))

    def tokenize_row(self, feature: Record, model: Any = None) -> Record:
        """The sequences of a record as TRL's collator reads them, from the token ids of `encode_pairs`.

        As in TRL, an answer ends with the end-of-text token, and is truncated to `max_length`.
        """
        prompt, end = feature["prompt_ids"], self.processing_class.eos_token_id
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"]
            answer = answer if answer[-1:] == [end] else [*answer, end]
            answer = answer[: max(0, self.max_length - len(prompt))]
            row[f"{side}_input_ids"] = prompt + answer
            row[f"{side}_attention_mask"] = [1] * len(prompt + answer)
            row[f"{side}_labels"] = [IGNORE_INDEX] * len(prompt) + answer
        return row

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
