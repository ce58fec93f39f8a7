"""TRL's SFTTrainer, which tells what it cuts, refuses what would be learned wrongly, and shows what it will see."""

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
from training.tuning.lengths import check_positions, max_positions


class SupervisedTrainer(SFTTrainer):
    """TRL's trainer. Of the data it leaves out samples in which nothing is scored, and counts them; all else is TRL's.

    Raises:
        UserError: nothing would be scored, samples outgrow the model's positions, the chat template is missing or marks
            no answers though they alone are to be scored, or packed samples would see one another.
    """

    def __init__(self, *, model: Any, args: SFTConfig, train_dataset: Any, processing_class: Any, **others: Any):
        if args.packing and args.packing_strategy == "wrapped":
            raise UserError(
                "'packing_strategy': wrapped joins samples with no mask between them, so that each sees those before "
                "it; take bfd, or bfd_split to lose no token"
            )
        self.max_positions = max_positions(model)
        check_template(processing_class, args, train_dataset)
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, processing_class=processing_class, **others
        )
        if self.padding_free:
            self.check_isolation()

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: SFTConfig, packing: bool, formatting_func: Any, name: str
    ) -> Any:
        """TRL's own preparation in two goes, tokens and labels first, so that what the rest cuts can be counted."""
        if not isinstance(dataset, Dataset):  # a stream, of unknown length
            return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, name)
        if args.assistant_only_loss and "input_ids" not in dataset.column_names:
            check_answers(dataset, name)
        whole_samples = copy.copy(args)
        whole_samples.max_length, whole_samples.shuffle_dataset = None, False
        whole = super()._prepare_dataset(dataset, processing_class, whole_samples, False, formatting_func, name)
        whole = self.leave_out_unscored(whole, args, packing, name)
        return super()._prepare_dataset(whole, processing_class, args, packing, None, name)

    def leave_out_unscored(self, whole: Dataset, args: SFTConfig, packing: bool, name: str) -> Dataset:
        """The samples in which something is scored after they are cut to `max_length`. Prints what happens to the rest.

        Args:
            whole: samples with `input_ids` and `labels`, uncut.
            name: of the split.
        """
        splitting = packing and args.packing_strategy == "bfd_split"
        keep_end = args.truncation_mode == "keep_end" and not packing  # packing keeps the start whatever is asked
        window = slice(-args.max_length, None) if keep_end and args.max_length else slice(args.max_length)
        if splitting:
            window = slice(None)
        lengths, scored = [], []
        for batch in whole.select_columns(["labels"]).with_format("numpy").iter(1000):
            for labels in batch["labels"]:
                lengths.append(len(labels))
                scored.append(np.count_nonzero(labels[window][1:] != IGNORE_INDEX))  # nothing comes before the first
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
            fate = "go on in another sequence" if splitting else f"are cut at their {end}"
            print(f"sft: {name}: {longer:,} exceed max_length {limit} and {fate}")
        if lost == len(lengths):
            raise UserError(
                f"'max_length': within {limit} tokens no sample of {name} has a scored one (they are "
                f"{lengths.min():,} tokens or longer); raise it, or see with --preview what is scored"
            )
        cure = f"give max_length: {self.max_positions}, and they are cut"
        check_positions(np.minimum(lengths, limit), self.max_positions, "samples", name, cure)
        if lost:
            print(f"sft: {name}: {lost:,} with nothing scored in what is left of them are left out")
            whole = whole.select(np.flatnonzero(scored))
        return whole

    def check_isolation(self) -> None:
        """Refuse to pack for a model in which a sample sees the one before it in its row.

        It is tried: what the model says of a sample must not change with its neighbour. Masks and kernels differ
        between architectures and attention implementations, and those that ignore `position_ids` do so silently.

        Raises:
            UserError: it changes.
        """
        length = 8
        first, other, second = torch.arange(3 * length).remainder(len(self.processing_class)).view(3, length).tolist()
        training = self.model.training
        self.model.eval()
        said = []
        for neighbour in (first, other):
            samples = [{"input_ids": ids, "labels": ids, "seq_lengths": [length]} for ids in (neighbour, second)]
            row = {
                key: value.to(self.model.device) if isinstance(value, torch.Tensor) else value
                for key, value in self.data_collator(samples).items()
                if key != "labels"
            }
            with torch.no_grad(), self.accelerator.autocast():
                logits = self.model(**row, use_cache=False).logits  # (1, 2 * length, vocab)
            said.append(logits[0, length : 2 * length].float())
        self.model.train(training)
        change, size = (said[0] - said[1]).abs().max(), said[0].abs().max()
        if change > 1e-5 * size:  # apart, it is 0 but for kernels that add up in another order
            key = "packing" if self.args.packing else "padding_free"
            raise UserError(
                f"'{key}': with attn_implementation {self.model.config._attn_implementation} this model lets samples "
                f"in a row see one another; choose another, or leave {key} out"
            )


def check_template(tokenizer: PreTrainedTokenizerBase, args: SFTConfig, data: Any) -> None:
    """Refuse conversations without a chat template, and answers that cannot be told from the rest.

    Raises:
        UserError: which of the two, and what to do.
    """
    if not is_conversational(next(iter(data))):
        return
    given = args.chat_template_path
    template = tokenizer.chat_template
    if given and os.path.isfile(given):
        template = Path(given).read_text(encoding="utf-8")
    if not template and not given:
        raise UserError(
            "'model_name_or_path': its tokenizer has no chat template, which conversations are written with; name one "
            "with chat_template_path, or give prompt and completion as text"
        )
    if not args.assistant_only_loss:
        return
    if template and not has_generation_markers(template):
        try:
            get_training_chat_template(tokenizer)  # TRL knows some templates, and marks them itself
        except ValueError:
            raise UserError(
                "'assistant_only_loss': the chat template does not mark the answers ({% generation %} ... "
                "{% endgeneration %}); name one that does with chat_template_path, or give prompt and completion, of "
                "which the completion alone is scored without marks"
            ) from None


def check_answers(data: Dataset, name: str) -> None:
    """Refuse conversations in which nobody answers, where the answers alone are scored.

    Raises:
        UserError: names the record.
    """
    column = "messages" if "messages" in data.column_names else "completion"
    for number, messages in enumerate(data[column], start=1):
        if not any(message["role"] == "assistant" for message in messages):
            raise UserError(
                f"'assistant_only_loss': record {number} of {name} has no message of the assistant, so nothing in it "
                "is scored; take it out"
            )


def samples(trainer: SFTTrainer) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and whether each is scored, both (seq,), one sample after another as they come out of the collator."""
    for row in trainer.train_dataset:
        batch = trainer.data_collator([row])
        input_ids, scored = batch["input_ids"][0], batch["labels"][0] != IGNORE_INDEX
        starts = [0]
        if "position_ids" in batch:
            starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
        for start, end in pairwise([*starts, len(input_ids)]):
            scored[start] = False  # there is nothing before it to foretell it from
            yield input_ids[start:end], scored[start:end]


def preview(trainer: SFTTrainer, count: int = 2) -> None:
    """Print samples as the trainer will see them: green on a terminal, between ⟦ and ⟧ elsewhere, what is scored."""
    opening, closing = ("\033[32m", "\033[0m") if sys.stdout.isatty() else ("⟦", "⟧")
    print(f"Scored, and so learned, is what stands {'in green' if sys.stdout.isatty() else 'between ⟦ and ⟧'}.")
    for number, (input_ids, scored) in zip(range(1, count + 1), samples(trainer), strict=False):
        print(f"\n--- sample {number}: {len(input_ids)} tokens, {int(scored.sum())} of them scored ---")
        borders = [0, *(scored[1:] != scored[:-1]).nonzero().add(1).flatten().tolist(), len(input_ids)]
        for start, end in pairwise(borders):
            words = trainer.processing_class.decode(input_ids[start:end])
            print(f"{opening}{words}{closing}" if scored[start] else words, end="")
        print()
