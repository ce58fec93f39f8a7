"""Equal prompts of a batch, read once: GRPO asks each prompt for several answers, which share its keys and values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

# Arguments of a forward pass with which equal prompts give equal results.
READ_ONCE = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}


def has_dropout(model: PreTrainedModel) -> bool:
    """Whether equal prompts have different results: dropout is on, of the model or of an adapter in it."""
    modules = (module for module in model.modules() if isinstance(module, nn.Dropout))
    return bool(model.training and model.config.attention_dropout) or any(part.training and part.p for part in modules)


def read_distinct_prompts(
    prefill: Callable[..., CausalLMOutputWithPast],
    input_ids: torch.LongTensor,
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
    **others: Any,
) -> CausalLMOutputWithPast:
    """The output of `prefill`, with equal prompts of the batch read once. GRPO repeats each prompt for every answer.

    Args:
        prefill: transformers' own function, which fills the cache in `model_kwargs`.
        input_ids: (batch, seq).
        model_kwargs: arguments of the forward pass.
    """
    cache, batch = model_kwargs.get("past_key_values"), len(input_ids)
    by_row = [name for name in ("attention_mask", "position_ids") if model_kwargs.get(name) is not None]
    parts = [input_ids, *(model_kwargs[name] for name in by_row)]
    simple = (
        type(cache) is DynamicCache
        and not (vars(cache).get("offloading") or cache.get_seq_length())
        and model_kwargs.keys() <= READ_ONCE
        and not (
            generation_config.output_attentions
            or generation_config.output_hidden_states
            or generation_config.prefill_chunk_size
        )
        and all(part.shape == input_ids.shape for part in parts)
    )
    if not simple:
        return prefill(input_ids, generation_config, model_kwargs, **others)
    distinct, place = torch.stack(parts, dim=1).unique(dim=0, return_inverse=True)  # place: (batch,)
    if len(distinct) == batch:
        return prefill(input_ids, generation_config, model_kwargs, **others)
    first = torch.full((len(distinct),), batch, device=place.device)
    first.scatter_reduce_(0, place, torch.arange(batch, device=place.device), "amin")
    model_kwargs = model_kwargs | {name: model_kwargs[name][first] for name in by_row}
    output = prefill(input_ids[first], generation_config, model_kwargs, **others)
    cache.batch_select_indices(place)
    output.logits = output.logits[place]
    return output
