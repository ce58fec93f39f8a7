"""What a model has learnt so far: its loss on text it does not train on, and samples of what it writes."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.data.loader import Batch, TokenLoader


@torch.no_grad()
def validate(
    loss: Callable[[Batch], torch.Tensor], loader: TokenLoader, sequences: int, rows_at_once: int
) -> dict[str, float]:
    """Mean loss of the scored tokens of the same rows each time, spread evenly over the split, by folder of shards.

    Every process scores the same rows: a sharded model needs all of them in each forward pass.

    Args:
        loss: the mean over the scored tokens of a batch, in nats.
    """
    losses = {}
    for folder, rows in zip(loader.mixture.folders, loader.evenly_spaced(sequences), strict=True):
        total, scored = 0.0, 0
        for start in range(0, len(rows), rows_at_once):
            batch = loader.read(rows[start : start + rows_at_once])
            count = int((batch.labels != IGNORE_INDEX).sum())
            total += loss(batch).item() * count
            scored += count
        losses[folder] = total / scored
    return losses


@torch.no_grad()
def samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str], new_tokens: int, seed: int
) -> str:
    """Continuations of the prompts, as lines to print: always drawn from the same random numbers."""
    text = ""
    torch.manual_seed(seed)  # the next training step seeds anew
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
        room = model.config.max_position_embeddings - inputs["input_ids"].shape[1]
        length = min(new_tokens, room)
        output = model.generate(**inputs, do_sample=True, temperature=0.8, top_k=50, max_new_tokens=length)
        lines = tokenizer.decode(output[0], skip_special_tokens=True).splitlines()
        text += "\n" + "\n".join(f"    | {line}" for line in lines)
    return text


def readable_prompts(prompts: list[str], tokenizer: PreTrainedTokenizerFast, context: int) -> list[str]:
    """The prompts that the tokenizer can read, a character-level one knows only the characters of its own text, and
    that leave room in the context, in tokens, to go on."""
    readable = []
    for prompt in prompts:
        try:
            tokens = len(tokenizer(prompt)["input_ids"])
        except Exception as error:  # tokenizers raises nothing narrower
            print(f"pretrain: the sample prompt {prompt!r} is left out: {error}")
            continue
        if 0 < tokens < context:
            readable.append(prompt)
        else:
            print(f"pretrain: the sample prompt {prompt!r} is left out: {tokens} tokens, and the context is {context}")
    return readable
