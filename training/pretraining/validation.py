"""Validation during pretraining: the loss on held-out text, and samples of what the model writes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.data.loader import Batch, TokenLoader


@dataclass(frozen=True)
class Sample:
    """A text that the model wrote: `text` is the prompt and its continuation."""

    prompt: str
    text: str

    def __str__(self) -> str:
        """Lines to print below others."""
        return "\n" + "\n".join(f"    | {line}" for line in self.text.splitlines())


@torch.no_grad()
def validate(
    loss: Callable[[Batch], torch.Tensor], loader: TokenLoader, num_sequences: int, batch_size: int
) -> dict[str, float]:
    """Mean loss per scored token, in nats, by folder of shards.

    It takes the same sequences each time, spread evenly over the split. Every process scores all of them, because each
    forward pass of a sharded model needs all processes.

    Args:
        loss: computes the mean over the scored tokens of a batch, in nats.
        num_sequences: how many to score, over all folders.
        batch_size: sequences per forward pass.
    """
    losses = {}
    for folder, sequences in zip(loader.mixture.folders, loader.evenly_spaced(num_sequences), strict=True):
        total, scored = 0.0, 0
        for start in range(0, len(sequences), batch_size):
            batch = loader.read(sequences[start : start + batch_size])
            count = int((batch.labels != IGNORE_INDEX).sum())
            total += loss(batch).item() * count
            scored += count
        losses[folder] = total / scored
    return losses


@torch.no_grad()
def samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str], new_tokens: int, seed: int
) -> list[Sample]:
    """Continuations of the prompts. Every call draws the same random numbers, from `seed`."""
    written = []
    torch.manual_seed(seed)  # the next training step seeds again
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
        room = model.config.max_position_embeddings - inputs["input_ids"].shape[1]
        length = min(new_tokens, room)
        output = model.generate(**inputs, do_sample=True, temperature=0.8, top_k=50, max_new_tokens=length)
        written.append(Sample(prompt, tokenizer.decode(output[0], skip_special_tokens=True)))
    return written


def readable_prompts(prompts: list[str], tokenizer: PreTrainedTokenizerFast, context: int) -> list[str]:
    """The prompts that the tokenizer can encode and that leave room in the context for a continuation.

    A character-level tokenizer cannot encode characters that its text did not have. What is left out is printed.

    Args:
        context: tokens.
    """
    readable = []
    for prompt in prompts:
        try:
            tokens = len(tokenizer(prompt)["input_ids"])
        except Exception as error:  # tokenizers raises no narrower class
            print(f"pretrain: sample prompt {prompt!r} left out: {error}")
            continue
        if 0 < tokens < context:
            readable.append(prompt)
        else:
            print(f"pretrain: sample prompt {prompt!r} left out: it has {tokens} tokens, and the context is {context}")
    return readable
