"""The tokenizer of a foreign model: a folder, the one beside the checkpoint, or the characters of a text."""

from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from training.common.files import check_file
from training.foreign.characters import character_tokenizer
from training.foreign.stock import StockModel
from training.model_io.model_folder import (
    copy_tokenizer,
    generation_config,
    name_tokenizer_class,
    save_tokenizer,
    special_token_ids,
    write_model,
)
from training.model_io.tokenizers import check_vocabulary, open_tokenizer


def find_tokenizer(stock: StockModel, folder: str | None, characters: str | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer, with an embedding for each token; None if there is none.

    Raises:
        UserError: it is damaged, or of another size than the model.
    """
    if characters:
        check_file(Path(characters), "characters")
        return character_tokenizer(characters, stock.config.vocab_size)
    place = folder or stock.tokenizer
    if not place:
        return None
    tokenizer = open_tokenizer(place, "tokenizer")
    check_vocabulary(tokenizer, stock.config, place, "tokenizer")
    return tokenizer


def settings_of(tokenizer: PreTrainedTokenizerBase, rows: int, begins: bool) -> GenerationConfig:
    """Generation settings: the tokenizer's ends, and common sampling defaults.

    Args:
        rows: of the model's embedding.
        begins: see `StockModel`.
    """
    settings = generation_config(tokenizer, rows)
    if begins and tokenizer.bos_token_id is not None:
        settings.bos_token_id = tokenizer.bos_token_id
        ends = dict.fromkeys((tokenizer.bos_token_id, tokenizer.eos_token_id))
        settings.eos_token_id = [token for token in ends if token is not None]
    return settings


def attach(
    tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig, model: PreTrainedModel, folder: Path
) -> None:
    """Write the model with its generation settings and the tokenizer's special tokens, and the tokenizer beside it."""
    ids = special_token_ids(tokenizer) | {"bos_token_id": settings.bos_token_id}
    for name, token in ids.items():
        setattr(model.config, name, token)
    model.generation_config = settings
    write_model(model, folder)
    source = Path(tokenizer.name_or_path)
    if (source / "tokenizer.json").is_file() and tokenizer.name_or_path:
        copy_tokenizer(source, folder, model)
        name_tokenizer_class(source, folder)
    else:
        save_tokenizer(tokenizer, folder, model)
