"""SFT trainer: TRL's, with a count of truncated samples, a check of packing, and a preview of what is scored."""

import copy
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer
from trl.chat_template_utils import get_training_chat_template, has_generation_markers
from trl.data_utils import is_conversational

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.common.errors import UserError
from training.model_io.context_length import context_length
from training.model_io.conversations import encode_answers, encode_conversation, encode_text
from training.plots.losses import NATS
from training.tuning.dataset_formats import Record, columns_of
from training.tuning.encoding import check_lengths, encode_dataset, template_options


class ScratchSFTTrainer(SFTTrainer):
    """TRL's SFTTrainer, with our encoding. Samples in which no token is scored are dropped and counted.

    Raises:
        UserError: no token would be scored, samples exceed the model's positions, the chat template is missing or does
            not mark the answers though they alone are to be scored, or packed samples would attend to each other.
    """

    loss_label = NATS

    def __init__(self, *, model: Any, args: SFTConfig, train_dataset: Any, processing_class: Any, **others: Any):
        if args.loss_type != "nll" or args.label_smoothing_factor:
            smoothing = args.label_smoothing_factor
            self.loss_label = f"loss ({args.loss_type}, label smoothing {smoothing:g}; lower is better)"
        if args.packing and args.packing_strategy == "wrapped":
            raise UserError(
                "'packing_strategy': wrapped joins samples with no mask between them, so that each attends to those "
                "before it; use bfd, or bfd_split to keep every token"
            )
        self.context_length = context_length(model.config)
        check_template(processing_class, args, train_dataset)
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, processing_class=processing_class, **others
        )
        if self.padding_free:
            self.check_packing()

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: SFTConfig, packing: bool, formatting_func: Any, name: str
    ) -> Any:
        """Encode the records, and prepare them as TRL does, but tokens and labels first, so that truncated samples can
        be counted."""
        if "input_ids" not in columns_of(dataset):
            if args.assistant_only_loss and isinstance(dataset, Dataset):
                check_answers(dataset, name)
            options = {"text_column": args.dataset_text_field, "chat_template": self.chat_template}
            options |= {"tokenizer": processing_class, "marked": args.assistant_only_loss}
            dataset = encode_dataset(dataset, encode_sample, args, name, **options)
        else:
            dataset = encode_dataset(dataset, check_tokens, args, name, vocab_size=len(processing_class))
        if not isinstance(dataset, Dataset):  # a stream, of unknown length
            return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, name)
        whole_samples = copy.copy(args)
        whole_samples.max_length, whole_samples.shuffle_dataset = None, False
        whole = super()._prepare_dataset(dataset, processing_class, whole_samples, False, formatting_func, name)
        whole = self.drop_unscored(whole, args, packing, name)
        return super()._prepare_dataset(whole, processing_class, args, packing, None, name)

    def drop_unscored(self, whole: Dataset, args: SFTConfig, packing: bool, name: str) -> Dataset:
        """The samples that have a scored token after truncation to `max_length`. Prints the counts.

        Args:
            whole: samples with `input_ids` and `labels`, not truncated.
            name: of the split.

        Raises:
            UserError: no sample is left, or some exceed the model's positions.
        """
        splitting = packing and args.packing_strategy == "bfd_split"
        keep_end = args.truncation_mode == "keep_end" and not packing  # packing keeps the start in any mode
        kept_part = slice(-args.max_length, None) if keep_end and args.max_length else slice(args.max_length)
        if splitting:
            kept_part = slice(None)
        lengths, scored = [], []
        for batch in whole.select_columns(["labels"]).with_format("numpy").iter(1000):
            for labels in batch["labels"]:
                lengths.append(len(labels))
                # The first token has no token before it that could predict it.
                scored.append(np.count_nonzero(labels[kept_part][1:] != IGNORE_INDEX))
        lengths, scored = np.array(lengths), np.array(scored)
        limit = args.max_length or lengths.max()
        kept = np.minimum(lengths, lengths.max() if splitting else limit)
        print(
            f"sft: {name}: {len(lengths):,} samples of {lengths.min():,} to {lengths.max():,} tokens, median "
            f"{np.median(lengths):,.0f}; {scored.sum() / kept.sum():.0%} of the tokens are scored"
        )
        longer, lost = int((lengths > limit).sum()), int((scored == 0).sum())
        if longer:
            end = "start" if keep_end else "end"
            fate = "are split over several sequences" if splitting else f"are truncated at their {end}"
            print(f"sft: {name}: {longer:,} exceed max_length {limit} and {fate}")
        if lost == len(lengths):
            raise UserError(
                f"'max_length': no sample of {name} has a scored token within {limit} tokens (they have "
                f"{lengths.min():,} tokens or more); raise it, or look at the samples with --preview"
            )
        remedy = f"set max_length: {self.context_length} to truncate them"
        check_lengths(np.minimum(lengths, limit), self.context_length, "samples", name, remedy)
        if lost:
            print(f"sft: {name}: {lost:,} have no scored token left and are dropped")
            whole = whole.select(np.flatnonzero(scored))
        return whole

    def check_packing(self) -> None:
        """Reject packing for a model in which a sample attends to the one before it in its sequence.

        The check runs the model: its logits for a sample must not change with the neighbour. Masks and kernels differ
        between architectures and attention implementations, and those that ignore `position_ids` do so silently.

        Raises:
            UserError: the logits change.
        """
        length = 8
        first, other, second = torch.arange(3 * length).remainder(len(self.processing_class)).view(3, length).tolist()
        training = self.model.training
        self.model.eval()
        beside = []  # logits of `second` beside each neighbour
        for neighbour in (first, other):
            samples = [{"input_ids": ids, "labels": ids, "seq_lengths": [length]} for ids in (neighbour, second)]
            batch = {
                key: value.to(self.model.device) if isinstance(value, torch.Tensor) else value
                for key, value in self.data_collator(samples).items()
                if key != "labels"
            }
            with torch.no_grad(), self.accelerator.autocast():
                logits = self.model(**batch, use_cache=False).logits  # (1, 2 * length, vocab)
            beside.append(logits[0, length : 2 * length].float())
        self.model.train(training)
        change, size = (beside[0] - beside[1]).abs().max(), beside[0].abs().max()
        if change > 1e-5 * size:  # 0 for isolated samples, except for kernels that sum in another order
            key = "packing" if self.args.packing else "padding_free"
            raise UserError(
                f"'{key}': with attn_implementation {self.model.config._attn_implementation}, samples packed into one "
                f"sequence attend to each other in this model; choose another implementation, or leave {key} out"
            )


def encode_sample(
    record: Record,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str,
    chat_template: str | None,
    marked: bool,
) -> Record:
    """The token ids of a record as `input_ids`, with the masks from which TRL makes its labels.

    Args:
        text_column: of plain text, in a record that is neither a conversation nor a prompt with its completion.
        chat_template: instead of the tokenizer's own.
        marked: score only what the template marks as the assistant's.
    """
    pair = "prompt" in record and "completion" in record
    if not pair and "messages" not in record:
        return {"input_ids": encode_text(tokenizer, record[text_column]), "as_shown": True}
    if isinstance(record.get("prompt"), str):
        encoded = encode_answers(tokenizer, record["prompt"], record["completion"])
        ids, start, as_shown, answers = encoded.prompt + encoded.answers[0], len(encoded.prompt), True, None
    else:
        prompt, completion = record.get("prompt", []), record.get("completion", record.get("messages"))
        template = {"chat_template": chat_template} | template_options(record)
        encoded = encode_conversation(tokenizer, prompt + completion, starts=len(prompt), **template)
        start = encoded.prompts.get(len(prompt), 0)
        ids, as_shown, answers = encoded.ids, encoded.as_shown, encoded.answers
    sample = {"input_ids": ids, "as_shown": as_shown}
    if pair:
        sample["completion_mask"] = [0] * start + [1] * (len(ids) - start)
    if marked:
        sample["assistant_masks"] = answers
    return sample


def check_tokens(record: Record, vocab_size: int) -> Record:
    """Reject token ids and labels that are not of the tokenizer.

    Raises:
        ValueError: the first of them.
    """
    for column in ("input_ids", "labels"):
        for index in record.get(column) or ():
            if index >= vocab_size or (index < 0 and (column, index) != ("labels", IGNORE_INDEX)):
                raise ValueError(f"'{column}' has the id {index}, but the tokenizer has {vocab_size} tokens")
    return {"as_shown": True}


def check_template(tokenizer: PreTrainedTokenizerBase, args: SFTConfig, data: Any) -> None:
    """Reject conversations without a chat template, and templates without the marks that assistant_only_loss needs.

    Raises:
        UserError: one of the two.
    """
    if not is_conversational(next(iter(data))):
        return
    given = args.chat_template_path
    template = tokenizer.chat_template
    if given and os.path.isfile(given):
        template = Path(given).read_text(encoding="utf-8")
    if not template and not given:
        raise UserError(
            "'model_name_or_path': its tokenizer has no chat template, which conversations need; set "
            "chat_template_path, or give prompt and completion as text"
        )
    if not args.assistant_only_loss:
        return
    if template and not has_generation_markers(template):
        try:
            get_training_chat_template(tokenizer)  # TRL knows some templates, and adds the marks itself
        except ValueError:
            raise UserError(
                "'assistant_only_loss': the chat template does not mark the answers ({% generation %} ... "
                "{% endgeneration %}); name one that does with chat_template_path, or give prompt and completion, "
                "which need no marks"
            ) from None


def check_answers(data: Dataset, name: str) -> None:
    """Reject conversations without an answer, where the answers alone are scored.

    Raises:
        UserError: with the number of the record.
    """
    column = "messages" if "messages" in data.column_names else "completion"
    for number, messages in enumerate(data[column], start=1):
        if not any(message["role"] == "assistant" for message in messages):
            raise UserError(
                f"'assistant_only_loss': record {number} of {name} has no message of the assistant, so no token of it "
                "is scored; remove it"
            )


def samples(trainer: SFTTrainer) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Samples as the collator gives them: token ids, and whether each is scored, both (seq,)."""
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        input_ids, scored = batch["input_ids"][0], batch["labels"][0] != IGNORE_INDEX
        starts = [0]
        if "position_ids" in batch:
            starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
        for start, end in pairwise([*starts, len(input_ids)]):
            scored[start] = False  # no token before it predicts it
            yield input_ids[start:end], scored[start:end]


def preview(trainer: SFTTrainer, count: int = 2) -> None:
    """Print samples as the trainer sees them; scored tokens are green on a terminal, between ⟦ and ⟧ elsewhere."""
    opening, closing = ("\033[32m", "\033[0m") if sys.stdout.isatty() else ("⟦", "⟧")
    print(f"The loss is computed on the tokens {'in green' if sys.stdout.isatty() else 'between ⟦ and ⟧'}.")
    for number, (input_ids, scored) in zip(range(1, count + 1), samples(trainer), strict=False):
        print(f"\n--- sample {number}: {len(input_ids)} tokens, {int(scored.sum())} of them scored ---")
        borders = [0, *(scored[1:] != scored[:-1]).nonzero().add(1).flatten().tolist(), len(input_ids)]
        for start, end in pairwise(borders):
            words = trainer.processing_class.decode(input_ids[start:end])
            print(f"{opening}{words}{closing}" if scored[start] else words, end="")
        print()
