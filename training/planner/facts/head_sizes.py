"""Sizes of attention heads that vLLM runs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# On a processor: vLLM 0.32, vllm/v1/attention/backends/cpu_attn.py. On a GPU its FlashAttention has every multiple of 8
# up to 256.
VLLM_CPU = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)


def head_size_note(head_dim: int | None) -> str | None:
    """A sentence for a model that vLLM cannot run on a processor; None if it can.

    Args:
        head_dim: coordinates of a head; None if it is not known.
    """
    if head_dim is None or head_dim in VLLM_CPU:
        return None
    *sizes, last = map(str, VLLM_CPU)
    return f"vLLM on a processor has no heads of {head_dim}, only of {', '.join(sizes)} and {last}."


def head_size(config: "PreTrainedConfig") -> int | None:
    """Coordinates of a head of any model of transformers; None if it has no heads."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    return getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else None)
