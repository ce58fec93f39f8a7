"""ORPO trainer: TRL's experimental one, with exact accumulation, and a count of records without room to answer."""

import warnings
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.import_utils import TRLExperimentalWarning

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.model_io.context_length import context_length
from training.tuning.accumulation import ExactAccumulation
from training.tuning.dataset_formats import Record
from training.tuning.encoding import check_kept, encode_dataset, encode_pairs

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TRLExperimentalWarning)  # the help of `scratch orpo` states this
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class ScratchORPOTrainer(ExactAccumulation, ORPOTrainer):
    """TRL's ORPOTrainer (Hong et al., https://arxiv.org/abs/2403.07691), which would train on empty answers.

    It is experimental in TRL: it may change or go with a minor release.

    Raises:
        UserError: no record is left after truncation, or some exceed the model's positions.
    """

    loss_label = "ORPO loss (lower is better)"

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
        self.of_batch = [1.0, 1.0]  # factors of the means over tokens and pairs of the current batch
        splits = {"train": train_dataset} | ({"eval": eval_dataset} if eval_dataset is not None else {})
        train, *held_out = [
            encode_dataset(data, encode_record, args, name, tokenizer=processing_class) for name, data in splits.items()
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

    def count(self, batch: dict[str, torch.Tensor]) -> list[float]:
        """Predicted tokens of the chosen answers with their prompts, and pairs."""
        mask = batch["chosen_attention_mask"]  # (pairs, seq); no token predicts the first one
        return [float(mask[:, 1:].sum()), len(mask)]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, with each of its two means weighted by the share of the batch; with figures if requested."""
        self.of_batch = self.factors(inputs, num_items_in_batch)
        try:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self.of_batch = [1.0, 1.0]  # for validation

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """TRL's log-probabilities and logits, and the weighted loss on the chosen answers."""
        outputs = super().concatenated_forward(model, batch)
        return *outputs[:4], outputs[4] * self.of_batch[0], *outputs[5:]

    def odds_ratio_loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """TRL's losses of the pairs, (pairs,), weighted, and its figures for the log."""
        losses, *figures = super().odds_ratio_loss(chosen, rejected)
        return losses * self.of_batch[1], *figures


def encode_record(record: Record, tokenizer: PreTrainedTokenizerBase) -> Record:
    """The token ids of `encode_pairs`, and text instead of messages, which TRL would render again, and may reject.

    `generate_during_eval` shows the prompt; nothing reads the answers.
    """
    pair = encode_pairs(record, tokenizer)
    prompt = tokenizer.decode(pair["prompt_ids"], skip_special_tokens=True)
    return pair | {"prompt": prompt, "chosen": "", "rejected": ""}
