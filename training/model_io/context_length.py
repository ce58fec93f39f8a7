"""Context length: the number of tokens a model was trained to attend to, read from its configuration."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DEFAULT_CONTEXT = 2048  # tokens, for a model whose configuration names none; the memory for logits grows with it


def context_length(config: "PreTrainedConfig") -> int | None:
    """Tokens of context (`max_position_embeddings` of the text model); None if the configuration names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
