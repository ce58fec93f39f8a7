"""Preference accuracy: does the model find the good answer likelier than the spoilt one?"""

import random
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.common.errors import UserError
from training.common.estimates import mean_with_stderr, proportion
from training.common.progress import progress_bar
from training.eval.measures.items import Outcome, identify
from training.eval.measures.prompts import check_rendering, encode_completion

MARGIN = "margin"  # a metric in nats


@torch.inference_mode()
def completion_log_probabilities(
    model: PreTrainedModel, pairs: list[tuple[list[int], list[int]]], batch_size: int, bf16: bool = False
) -> torch.Tensor:
    """Total log-probability, in nats, of each completion given its prompt.

    Args:
        pairs: (prompt ids, completion ids) each; batched by length, padded on the right.

    Returns:
        (len(pairs),) float64, in the order given.
    """
    device = model.device
    totals = torch.zeros(len(pairs), dtype=torch.float64)
    order = sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index])), reverse=True)
    with progress_bar(total=len(pairs), desc="likelihoods", unit="answer", leave=False) as bar:
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            width = max(sum(map(len, pairs[row])) for row in rows)
            inputs = torch.zeros(len(rows), width, dtype=torch.long)  # causal attention never looks at the padding
            targets = torch.full((len(rows), width), IGNORE_INDEX)
            for place, row in enumerate(rows):
                prompt, completion = pairs[row]
                end = len(prompt) + len(completion)
                inputs[place, :end] = torch.tensor(prompt + completion)
                targets[place, len(prompt) - 1 : end - 1] = torch.tensor(completion)  # the token after each position
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(input_ids=inputs.to(device), use_cache=False).logits  # (batch, width, vocab)
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten().to(device), ignore_index=IGNORE_INDEX, reduction="none"
            )
            totals[rows] = -losses.view(len(rows), width).double().sum(dim=1).cpu()
            bar.update(len(rows))
    return totals


def preference_accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: list[dict[str, Any]],
    limit: int,
    context: int,
    batch_size: int = 8,
    seed: int = 0,
    bf16: bool = False,
    measure: str = "preferences",
) -> tuple[dict[str, Any], list[Outcome]]:
    """The share of pairs whose chosen answer gets the higher total log-probability; a coin reaches one half.

    Totals are compared, not means, as in DPO. The pairs of `scratch prepare` have answers of matched length; in others
    a shorter answer has the better chance by that alone, which a comparison of two models on the same pairs cancels.

    Args:
        records: preference records (`prompt`, `chosen`, `rejected`, each a list of messages, or each text).
        limit: how many pairs to judge, drawn with `seed`.
        context: the model's trained length; a pair that does not fit is left out, counted.
        measure: what the outcomes are kept under.

    Returns:
        A share (`value`, `stderr`, `n`, `chance`) with `left_out` and `margin`, the mean in nats by which the chosen
        answer is likelier; and both of every pair.

    Raises:
        UserError: no pair fits.
    """
    picked = random.Random(seed).sample(records, min(limit, len(records)))
    encoded = [_encode(tokenizer, record) for record in picked]
    fits = [_fits(pair, context) for pair in encoded]
    fitting = [pair for pair, fit in zip(encoded, fits) if fit]
    if not fitting:
        raise UserError(f"no preference pair fits in a context of {context} tokens; train with a longer one")
    totals = completion_log_probabilities(model, [side for pair in fitting for side in pair], batch_size, bf16)
    chosen, rejected = totals.view(-1, 2).unbind(dim=1)
    margins = (chosen - rejected).tolist()
    judged = [record for record, fit in zip(picked, fits) if fit]
    outcomes = [
        Outcome(
            measure,
            identify([record["prompt"], record["chosen"], record["rejected"]]),
            {"acc": float(margin > 0), MARGIN: margin},
        )
        for record, margin in zip(judged, margins)
    ]
    return {
        **proportion([margin > 0 for margin in margins], chance=0.5),
        "left_out": len(encoded) - len(fitting),
        MARGIN: mean_with_stderr(margins),
    }, outcomes


def check_pairs(
    records: list[dict[str, Any]], name: str, tokenizer: PreTrainedTokenizerBase, context: int, model: str, key: str
) -> None:
    """Refuse, before any work, a model that cannot be measured on the pairs of a file.

    Args:
        name: of the pairs in the recipe.
        model, key: its folder, and the key of the recipe that names it.

    Raises:
        UserError: no chat template that would do, or no pair fits in the context.
    """
    check_rendering(tokenizer, records[0]["prompt"], model, key)
    if not any(_fits(_encode(tokenizer, record), context) for record in records):
        raise UserError(f"'pairs.{name}': no pair fits in the context of {model} ({key}), {context} tokens")


def _encode(tokenizer: PreTrainedTokenizerBase, record: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """The chosen answer and the rejected one, each behind its prompt."""
    return [encode_completion(tokenizer, record["prompt"], record[side]) for side in ("chosen", "rejected")]


def _fits(pair: list[tuple[list[int], list[int]]], context: int) -> bool:
    return all(len(prompt) + len(answer) <= context for prompt, answer in pair)
