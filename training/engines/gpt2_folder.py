"""GPT-2 folders as OpenAI published theirs, so that programs written for those open ours."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from training.model_io.model_folder import set_tokenizer_options

_PREFIX = "transformer."


def trim_embedding(model: PreTrainedModel, tokens: int) -> None:
    """Remove the rows of the embedding that have no token; CTranslate2's converter rejects a GPT-2 that has such rows.

    Args:
        tokens: number of tokens of the tokenizer.
    """
    if model.config.vocab_size > tokens:
        model.resize_token_embeddings(tokens)


def names_in_file(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors of a language model without the prefix `transformer.`, which mlx-lm does not expect in a file."""
    return {name.removeprefix(_PREFIX): tensor for name, tensor in model.state_dict().items()}


def name_unknown_token(folder: Path) -> None:
    """Name the first token of a text as the unknown one too, as GPT-2 does; CTranslate2 fails without.

    A byte-level tokenizer never needs it.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.unk_token is None and tokenizer.bos_token is not None:
        set_tokenizer_options(folder, unk_token=tokenizer.bos_token)


def fit_suppressed_tokens(folder: Path, rows: int) -> None:
    """Remove from the generation settings the suppressed ids that are beyond the embedding.

    Args:
        rows: of the embedding.
    """
    settings = GenerationConfig.from_pretrained(folder)
    if settings.suppress_tokens and max(settings.suppress_tokens) >= rows:
        settings.suppress_tokens = [token for token in settings.suppress_tokens if token < rows] or None
        settings.save_pretrained(folder)
