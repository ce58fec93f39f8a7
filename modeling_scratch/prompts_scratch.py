"""Equal prompts of a batch, read once: GRPO asks each prompt for several answers, which share its keys and values."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

# Arguments of a forward pass with which equal prompts give equal results.
READ_ONCE = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}


def read_distinct_prompts(
    prefill: Callable[..., CausalLMOutputWithPast],
    input_ids: torch.LongTensor,
    settings: GenerationConfig,
    arguments: dict[str, Any],
    **others: Any,
) -> CausalLMOutputWithPast:
    """What `prefill` returns, with equal prompts of the batch read once. GRPO repeats each prompt for every answer.

    Args:
        prefill: transformers' own function, which fills the cache in `arguments`.
        input_ids: (batch, seq).
        arguments: of the forward pass, by name.
    """
    cache, batch = arguments.get("past_key_values"), len(input_ids)
    by_row = [name for name in ("attention_mask", "position_ids") if arguments.get(name) is not None]
    parts = [input_ids, *(arguments[name] for name in by_row)]
    simple = (
        type(cache) is DynamicCache
        and not (vars(cache).get("offloading") or cache.get_seq_length())
        and arguments.keys() <= READ_ONCE
        and not (settings.output_attentions or settings.output_hidden_states or settings.prefill_chunk_size)
        and all(part.shape == input_ids.shape for part in parts)
    )
    if not simple:
        return prefill(input_ids, settings, arguments, **others)
    distinct, place = torch.stack(parts, dim=1).unique(dim=0, return_inverse=True)  # place: (batch,)
    if len(distinct) == batch:
        return prefill(input_ids, settings, arguments, **others)
    first = torch.full((len(distinct),), batch, device=place.device)
    first.scatter_reduce_(0, place, torch.arange(batch, device=place.device), "amin")
    arguments = arguments | {name: arguments[name][first] for name in by_row}
    output = prefill(input_ids[first], settings, arguments, **others)
    cache.batch_select_indices(place)
    output.logits = output.logits[place]
    return output
