"""Tokenizers of character-level models: the sorted characters of the text that they were trained on."""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from modeling_scratch.tokenization_character import CharacterTokenizer
from training.common.errors import UserError


def character_tokenizer(text: str, rows: int) -> PreTrainedTokenizerFast:
    """The tokenizer that nanoGPT and minGPT derive from a text: no special tokens, ids in code point order.

    Their own record of it, `meta.pkl`, is a pickle and is not opened.

    Args:
        text: a file, read with line ends as `\\n`, as the projects read it.
        rows: of the model's embedding, one for each character.

    Raises:
        UserError: the file is not UTF-8 text, or has another number of characters than the model.
    """
    file = Path(text)
    characters: set[str] = set()
    try:
        with file.open(encoding="utf-8") as stream:
            while part := stream.read(1 << 20):
                characters.update(part)
    except UnicodeDecodeError:
        raise UserError(f"'characters': {text} is not UTF-8 text; convert it, or give another file") from None
    if len(characters) != rows:
        raise UserError(
            f"'characters': {text} has {len(characters)} different characters, but the model has {rows} tokens; give "
            "the whole text that it was trained on"
        )
    backend = CharacterTokenizer(characters, special_tokens=()).to_backend()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
