"""Likelihoods under a model of the parts of a long stream of tokens."""

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.common.progress import progress_bar
from training.eval.measures.batching import by_length, pad

Window = tuple[int, int, int]  # start, scored_from, end: the model reads tokens[start:end] and scores from scored_from


@torch.inference_mode()
def token_nats(model: PreTrainedModel, inputs: torch.Tensor, targets: torch.Tensor, bf16: bool) -> torch.Tensor:
    """Negative log-likelihood of each target token, in nats.

    Attention is causal, so padding on the right is never seen; its targets are `IGNORE_INDEX` and cost 0.

    Args:
        inputs, targets: (batch, seq) token ids; a target is the token after the input at its position.
        bf16: run the forward pass under bfloat16 autocast; the losses are float32 in any case.

    Returns:
        (batch, seq) float64, on the CPU.
    """
    device = model.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = model(input_ids=inputs.to(device), use_cache=False).logits  # (batch, seq, vocab)
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten().to(device), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses.view(targets.shape).cpu().double()


def windows(length: int, context: int) -> list[Window]:
    """Windows of at most `context` tokens over a stream, without overlap, so that every token is scored once."""
    return [(start, start, min(start + context, length)) for start in range(0, length, context)]


def sum_nats(
    model: PreTrainedModel,
    tokens: np.ndarray,
    cuts: list[Window],
    ends: np.ndarray,
    prefix: int,
    batch_size: int = 8,
    bf16: bool = False,
) -> np.ndarray:
    """Negative log-likelihood, in nats, of each part of a stream.

    Args:
        tokens: (stream,) token ids.
        cuts: windows, see `Window`; tokens that none of them scores cost nothing.
        ends: (parts,) ascending: part i is `tokens[ends[i - 1]:ends[i]]`.
        prefix: the token before the first.
        batch_size: windows per forward pass.

    Returns:
        (parts,) float64.
    """
    nats = np.zeros(len(ends))
    total = sum(end - scored_from for _, scored_from, end in cuts)
    with progress_bar(total=total, desc="bits per byte", unit="token", unit_scale=True, leave=False) as bar:
        for batch in by_length([end - start for start, _, end in cuts], batch_size):
            pairs = [_inputs_and_targets(tokens, cuts[index], prefix) for index in batch]
            inputs, _ = pad([ids for ids, _ in pairs], padding=prefix)
            targets, _ = pad([ids for _, ids in pairs], padding=IGNORE_INDEX)
            losses = token_nats(model, inputs, targets, bf16).numpy()  # (batch, window)
            for row, index in enumerate(batch):
                start, scored_from, end = cuts[index]
                parts = np.searchsorted(ends, np.arange(scored_from, end), side="right")
                np.add.at(nats, parts, losses[row, scored_from - start : end - start])
                bar.update(end - scored_from)
    return nats


def _inputs_and_targets(tokens: np.ndarray, window: Window, prefix: int) -> tuple[list[int], list[int]]:
    """Input and target ids of a window: the input at a position is the token before the target there."""
    start, scored_from, end = window
    before = prefix if start == 0 else int(tokens[start - 1])
    skipped = [IGNORE_INDEX] * (scored_from - start)
    return [before, *tokens[start : end - 1].tolist()], [*skipped, *tokens[scored_from:end].tolist()]
