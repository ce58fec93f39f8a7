"""Text and bytes of a single token, which need not be whole characters."""

import re

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from training.model_io.tokenizers import UNDECODED

BYTES = {character: byte for byte, character in bytes_to_unicode().items()}  # of byte-level tokenizers, as GPT-2's
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # of SentencePiece's byte fallback


def token_bytes(tokenizer: PreTrainedTokenizerBase, token: int) -> tuple[str, bytes]:
    """Text of a token by itself, with U+FFFD for incomplete characters, and its bytes."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if UNDECODED not in text:
        return text, text.encode()
    written = tokenizer.convert_ids_to_tokens(token)
    if byte := BYTE_TOKEN.fullmatch(written):
        return text, bytes.fromhex(byte[1])
    if set(written) <= BYTES.keys():
        return text, bytes(BYTES[character] for character in written)
    return text, text.encode()
