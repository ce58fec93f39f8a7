"""Preference accuracy: does the model find the good answer likelier than the spoilt one?"""

import random
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_scratch.tokenization_base import TURN_END
from training.engine.progress import progress_bar
from training.errors import UserError
from training.eval.estimates import share
from training.eval.items import Outcome, identify

_UNSCORED = -100


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: list[dict[str, str]], completion: list[dict[str, str]]
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt (up to the assistant's opening) and of the completion, its `<|im_end|>` included.

    The two are encoded apart, so that the completion continues exactly the prompt the model is given in a chat.
    """
    opening = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(prompt + completion, tokenize=False)
    answer = whole[len(opening) : whole.rindex(TURN_END) + len(TURN_END)]
    prompt_ids, answer_ids = tokenizer([opening, answer], add_special_tokens=False)["input_ids"]
    return prompt_ids, answer_ids


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
    with progress_bar(total=len(pairs), desc="preferences", unit="answer", leave=False) as bar:
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            width = max(sum(map(len, pairs[row])) for row in rows)
            inputs = torch.zeros(len(rows), width, dtype=torch.long)  # causal attention never looks at the padding
            targets = torch.full((len(rows), width), _UNSCORED)
            for place, row in enumerate(rows):
                prompt, completion = pairs[row]
                end = len(prompt) + len(completion)
                inputs[place, :end] = torch.tensor(prompt + completion)
                targets[place, len(prompt) - 1 : end - 1] = torch.tensor(completion)  # the token after each position
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(input_ids=inputs.to(device), use_cache=False).logits  # (batch, width, vocab)
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten().to(device), ignore_index=_UNSCORED, reduction="none"
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
) -> tuple[dict[str, Any], list[Outcome]]:
    """The share of pairs whose chosen answer gets the higher total log-probability; a coin reaches one half.

    Totals are compared, not means: the pairs are made with answers of matched length, so no length bias hides in them.

    Args:
        records: preference records (`prompt`, `chosen`, `rejected`, each a list of messages).
        limit: how many pairs to judge, drawn with `seed`.
        context: the model's trained length; a pair that does not fit is left out, counted.

    Returns:
        A share (`value`, `stderr`, `n`, `chance`) with `left_out`, and what came of every pair.

    Raises:
        UserError: no pair fits.
    """
    picked = random.Random(seed).sample(records, min(limit, len(records)))
    encoded = [
        [encode_completion(tokenizer, record["prompt"], record[side]) for side in ("chosen", "rejected")]
        for record in picked
    ]
    fits = [all(len(prompt) + len(answer) <= context for prompt, answer in pair) for pair in encoded]
    fitting = [pair for pair, fit in zip(encoded, fits) if fit]
    if not fitting:
        raise UserError(f"no preference pair fits in a context of {context} tokens; train with a longer one")
    totals = completion_log_probabilities(model, [side for pair in fitting for side in pair], batch_size, bf16)
    chosen, rejected = totals.view(-1, 2).unbind(dim=1)
    preferred = (chosen > rejected).tolist()
    judged = [record for record, fit in zip(picked, fits) if fit]
    outcomes = [
        Outcome("preferences", identify([record["prompt"], record["chosen"], record["rejected"]]), {"acc": float(won)})
        for record, won in zip(judged, preferred)
    ]
    return {**share(preferred, chance=0.5), "left_out": len(encoded) - len(fitting)}, outcomes
