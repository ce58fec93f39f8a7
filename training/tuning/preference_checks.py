"""Base of the DPO and KTO trainers: our encoding, and checks for mistakes that TRL reports late or not at all."""

import re
from dataclasses import fields
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from training.common.errors import UserError
from training.model_io.context_length import context_length
from training.stages.recipe import nearest
from training.tuning.dataset_formats import columns_of
from training.tuning.encoding import IdsTokenizer, check_kept, encode_dataset, encode_pairs, ids_as_messages

ANSWERS = ("chosen_ids", "rejected_ids", "completion_ids")  # columns of token ids; DPO has the first two, KTO the last


def known_losses(config_class: type) -> list[str]:
    """The values of `loss_type`, read from the help of TRL's field: TRL lists them nowhere else."""
    (field,) = (field for field in fields(config_class) if field.name == "loss_type")
    return field.metadata.get("choices") or re.findall(r"`'(\w+)'`", field.metadata["help"])


class PreferenceChecks:
    """Mixin for TRL's DPOTrainer and KTOTrainer; it comes before them in the list of bases.

    Raises:
        UserError: an unknown `loss_type`, no record is left after truncation, or some exceed the model's positions.
    """

    def __init__(self, *, model: Any, args: Any, **others: Any):
        known = known_losses(type(args))
        losses = [args.loss_type] if isinstance(args.loss_type, str) else args.loss_type
        for loss in losses:
            if loss not in known:
                raise UserError(f"'loss_type': no loss '{loss}'; {nearest(loss, known)}")
        self.context_length = context_length(model.config)
        self.loss_label = f"preference loss ({', '.join(losses)}; lower is better)"
        super().__init__(model=model, args=args, **others)

    def _prepare_dataset(
        self, dataset: Any, processing_class: PreTrainedTokenizerBase, args: Any, dataset_name: str
    ) -> Any:
        """Encode prompts and answers, prepare the data as TRL does, and count the records that it drops because their
        prompt fills `max_length`."""
        encoded = encode_dataset(dataset, encode_pairs, args, dataset_name, tokenizer=processing_class)
        encoded = encoded.map(ids_as_messages, remove_columns=columns_of(encoded))
        kept = super()._prepare_dataset(encoded, IdsTokenizer(), args, dataset_name)
        if not isinstance(dataset, Dataset):  # a stream, of unknown length
            return kept
        answers = [kept[column] for column in ANSWERS if column in kept.column_names]
        lengths = [len(prompt) + max(map(len, each)) for prompt, *each in zip(kept["prompt_ids"], *answers)]
        truncated = [min(length, args.max_length or length) for length in lengths]
        check_kept(truncated, len(dataset), args.max_length, self.context_length, dataset_name)
        return kept
