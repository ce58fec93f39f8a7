"""Bits per byte: how many bits a model needs for each byte of text it has not seen.

Unlike perplexity it does not depend on the tokenizer, so models with different vocabularies compare.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.common.errors import UserError
from training.common.progress import progress_bar


def windows(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Where to cut a stream so that every target is scored once.

    Returns:
        `(start, scored_from, end)` of each window, as positions in the stream. The model reads `start:end` and is
        scored on `scored_from:end`; with `stride == context` the windows do not overlap and the two starts agree.
    """
    cuts, scored, start = [], 0, 0
    while scored < length:
        end = min(start + context, length)
        cuts.append((start, scored, end))
        scored = end
        start += stride
    return cuts


def bits_per_byte(
    model: PreTrainedModel,
    tokens: np.ndarray,
    text_bytes: int,
    end_of_text: int,
    context: int,
    stride: int | None = None,
    batch_size: int = 8,
    bf16: bool = False,
) -> dict[str, Any]:
    """Bits per byte over a whole split, every token scored exactly once.

    The split is one continuous stream, documents separated by `<|endoftext|>` alone, as in pretraining. The first
    token is scored as if an `<|endoftext|>` stood before it, so the sum is a complete code for the split. A token sees
    what precedes it in its window: 1 to `context` tokens without overlap, `context - stride + 1` at least (after the
    first window) with it. `<|endoftext|>` tokens must be predicted and so cost bits, but stand for no bytes of text.

    Args:
        tokens: (stream,) token ids, usually a memory map.
        text_bytes: UTF-8 bytes of the text behind the tokens.
        context: tokens a window, normally the length the model was trained on.
        stride: tokens from one window to the next; None for `context`, no overlap. Half the context costs twice the
            time and gives a lower, less pessimistic figure.
        batch_size: windows a forward pass.
        bf16: forward passes under bfloat16 autocast; the sum of log-probabilities stays in float32 and float64.

    Returns:
        `value` (bits per byte), `nats_per_token`, `tokens`, `bytes`, `context`, `stride`.

    Raises:
        UserError: an empty split, or a stride outside 1 to `context`.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise UserError(f"'stride' must lie between 1 and the context of {context} tokens, not {stride}")
    if len(tokens) == 0 or text_bytes == 0:
        raise UserError("the validation split is empty; bits per byte needs text to measure on")
    cuts = windows(len(tokens), context, stride)
    nats = sum_nats(model, tokens, cuts, np.array([len(tokens)]), end_of_text, batch_size, bf16).item()
    return {
        "value": nats / math.log(2) / text_bytes,
        "nats_per_token": nats / len(tokens),
        "tokens": len(tokens),
        "bytes": text_bytes,
        "context": context,
        "stride": stride,
    }


@torch.inference_mode()
def sum_nats(
    model: PreTrainedModel,
    tokens: np.ndarray,
    cuts: list[tuple[int, int, int]],
    ends: np.ndarray,
    prefix: int,
    batch_size: int = 8,
    bf16: bool = False,
) -> np.ndarray:
    """Negative log-likelihood, in nats, of each part of a stream.

    Args:
        tokens: (stream,) token ids.
        cuts: windows, see `windows`; tokens that none of them scores cost nothing.
        ends: (parts,) rising: part i is `tokens[ends[i - 1]:ends[i]]`.
        prefix: the token that stands before the first.

    Returns:
        (parts,) float64.
    """
    device = model.device
    nats = np.zeros(len(ends))
    total = sum(end - scored_from for _, scored_from, end in cuts)
    with progress_bar(total=total, desc="bits per byte", unit="token", unit_scale=True, leave=False) as bar:
        for first in range(0, len(cuts), batch_size):
            batch = cuts[first : first + batch_size]
            inputs, targets = (ids.to(device) for ids in _cut(tokens, batch, prefix))  # (batch, window) each
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(input_ids=inputs, use_cache=False).logits  # (batch, window, vocab)
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
            )
            losses = losses.view_as(targets).double().cpu().numpy()  # (batch, window)
            for row, (start, scored_from, end) in enumerate(batch):
                parts = np.searchsorted(ends, np.arange(scored_from, end), side="right")
                np.add.at(nats, parts, losses[row, scored_from - start : end - start])
            bar.update(sum(end - scored_from for _, scored_from, end in batch))
    return nats


def _cut(tokens: np.ndarray, cuts: list[tuple[int, int, int]], prefix: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of some windows, right-padded to the longest: attention is causal, so padding is not seen."""
    width = max(end - start for start, _, end in cuts)
    inputs = torch.full((len(cuts), width), prefix)
    targets = torch.full((len(cuts), width), IGNORE_INDEX)
    for row, (start, scored_from, end) in enumerate(cuts):
        # The input at position i is the token before target i; before the first stands the prefix.
        before = [prefix] if start == 0 else [int(tokens[start - 1])]
        inputs[row, : end - start] = torch.tensor([*before, *tokens[start : end - 1].tolist()])
        targets[row, scored_from - start : end - start] = torch.from_numpy(tokens[scored_from:end].astype(np.int64))
    return inputs, targets
