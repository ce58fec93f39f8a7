"""A batch of answers that are decoded together: each has a row in one cache, padded on the left to a common length.

Rows join and leave between any two steps. A new prompt is read by itself, without padding, and its keys and values are
then joined to those of the others. Positions are counted by row and padding is masked, so a row computes what it would
compute alone. Sums of several rows may be rounded differently from those of one: logits agree up to rounding.
"""

import inspect

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from training.serving.answer import Answer

# Positions in a sequence longer than the trained one change the rotation of all rows of a batch.
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}


class Batch:
    """Answers and their cache. A step computes one token's logits for each.

    Attributes:
        answers: one a row.
        mask: (rows, seq), 0 for padding; `seq` is the number of cached tokens of the longest row.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self.options = {"use_cache": True} | ({"logits_to_keep": 1} if "logits_to_keep" in accepted else {})
        self.answers: list[Answer] = []
        self.cache: DynamicCache | None = None
        self.mask = torch.empty(0, 0, dtype=torch.long)

    def add(self, answer: Answer) -> torch.Tensor:
        """Read the prompt of an answer, and all of its tokens so far, and let it join; its next logits, (1, vocab)."""
        input_ids = torch.tensor([answer.prompt + answer.ids], device=self.model.device)  # (1, seq)
        mask, cache = torch.ones_like(input_ids), DynamicCache()
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=torch.arange(input_ids.shape[1], device=self.model.device)[None],
            past_key_values=cache,
            **self.options,
        )
        self._join(answer, cache, mask)
        return output.logits[:, -1]

    def step(self) -> torch.Tensor:
        """Feed the last token of every answer; the logits of the next ones, (rows, vocab)."""
        tokens = torch.tensor([[answer.ids[-1]] for answer in self.answers], device=self.model.device)
        mask = pad(self.mask, (0, 1), value=1)
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=self.cache,
            **self.options,
        )
        self.mask = mask
        return output.logits[:, -1]

    def keep_in_progress(self) -> None:
        """Drop the rows of answers that are finished or cancelled, and the padding that no row needs any more."""
        rows = [row for row, answer in enumerate(self.answers) if answer.in_progress]
        if len(rows) == len(self.answers):
            return
        self.answers = [self.answers[row] for row in rows]
        if not rows:
            self.cache = None
            return
        mask = self.mask[rows]
        padding = int(mask.any(dim=0).int().argmax())  # columns before the longest row
        self.mask = mask[:, padding:]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows, :, padding:], layer.values[rows, :, padding:]

    def take_all(self) -> list[Answer]:
        """Remove all answers, whose rows may be damaged."""
        answers, self.answers, self.cache = self.answers, [], None
        return answers

    def _join(self, answer: Answer, cache: DynamicCache, mask: torch.Tensor) -> None:
        if self.cache is None:
            self.cache, self.mask = cache, mask
        else:
            length = max(self.mask.shape[1], mask.shape[1])
            self.mask = torch.cat([pad(rows, (length - rows.shape[1], 0)) for rows in (self.mask, mask)])
            for layer, new in zip(self.cache.layers, cache.layers, strict=True):
                layer.keys = _joined(layer.keys, new.keys, length)
                layer.values = _joined(layer.values, new.values, length)
        self.answers.append(answer)


def _joined(rows: torch.Tensor, new: torch.Tensor, length: int) -> torch.Tensor:
    """Keys or values, each (rows, kv_heads, seq, head_dim), one below the other, padded on the left to a length."""
    return torch.cat([pad(each, (0, 0, length - each.shape[2], 0)) for each in (rows, new)])


def can_batch(model: PreTrainedModel) -> bool:
    """Whether rows of several lengths can share a cache: every layer has keys and values by position, and no more."""
    accepted = inspect.signature(model.forward).parameters
    if not {"attention_mask", "position_ids", "past_key_values"} <= accepted.keys():
        return False
    config = model.config.get_text_config()
    layers = {type(layer) for layer in DynamicCache(config=config).layers}
    rope = getattr(config, "rope_parameters", None) or {}
    types = {rope.get("rope_type"), *(each.get("rope_type") for each in rope.values() if isinstance(each, dict))}
    return layers <= {DynamicLayer, DynamicSlidingWindowLayer} and not types & LENGTH_DEPENDENT_ROPE
