"""TRL's trainers of preferences, which find out before they train what they would else find out late, or not say."""

import re
from dataclasses import fields
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from training.common.errors import UserError
from training.common.recipe import nearest
from training.tuning.lengths import check_positions, max_positions

ANSWERS = ("chosen_ids", "rejected_ids", "completion_ids")  # columns of tokens, in one or the other


def known_losses(config_class: type) -> list[str]:
    """What TRL takes as `loss_type`, from its field, for TRL lists them nowhere else."""
    (field,) = (field for field in fields(config_class) if field.name == "loss_type")
    return field.metadata.get("choices") or re.findall(r"`'(\w+)'`", field.metadata["help"])


def check_kept(lengths: list[int], count: int, max_length: int | None, positions: int | None, name: str) -> None:
    """Count the records that were left out since their prompts fill `max_length`.

    Args:
        lengths: of those that are kept, in tokens, as they would be trained on.
        count: of all.
        positions: of the model, None if it knows no limit.
        name: of the split.

    Raises:
        UserError: none is kept, or some exceed the model's positions.
    """
    if not lengths:
        raise UserError(
            f"'max_length': every prompt of {name} fills it, {max_length} tokens, and leaves no room for an answer; "
            "raise it"
        )
    if len(lengths) < count:
        left_out = count - len(lengths)
        print(f"{name}: {left_out:,} of {count:,} records are left out: their prompts fill max_length {max_length}")
    check_positions(lengths, positions, "records", name, f"give max_length: {positions}, and they are cut")


class Preferred:
    """What the two have in common, to be put before TRL's class.

    Raises:
        UserError: a `loss_type` that it does not know, no record is left, or some exceed the model's positions.
    """

    def __init__(self, *, model: Any, args: Any, **others: Any):
        known = known_losses(type(args))
        for loss in [args.loss_type] if isinstance(args.loss_type, str) else args.loss_type:
            if loss not in known:
                raise UserError(f"'loss_type': no loss '{loss}'; {nearest(loss, known)}")
        self.max_positions = max_positions(model)
        super().__init__(model=model, args=args, **others)

    def _prepare_dataset(
        self, dataset: Any, processing_class: PreTrainedTokenizerBase, args: DPOConfig | KTOConfig, dataset_name: str
    ) -> Any:
        """TRL's, which drops a record whose prompt leaves nothing of `max_length` to an answer; counted here."""
        kept = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if not isinstance(dataset, Dataset):  # a stream, of unknown length
            return kept
        answers = [kept[column] for column in ANSWERS if column in kept.column_names]
        lengths = [len(prompt) + max(map(len, each)) for prompt, *each in zip(kept["prompt_ids"], *answers)]
        taken = [min(length, args.max_length or length) for length in lengths]
        check_kept(taken, len(dataset), args.max_length, self.max_positions, dataset_name)
        return kept


class PreferenceTrainer(Preferred, DPOTrainer):
    """TRL's DPOTrainer."""


class JudgementTrainer(Preferred, KTOTrainer):
    """TRL's KTOTrainer."""
