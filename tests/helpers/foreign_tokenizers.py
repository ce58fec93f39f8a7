"""Tokenizers as other packages train them, for tests of what must hold with any tokenizer."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from modeling_scratch.tokenization_scratch import split_pattern

TEXT = (
    "system user assistant tool\n\n\n    return 1\n\treturn x\r\n  \n\n- an item\n- another one\n   Say it.  No. " * 4
)
SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>")
JOINS = r"\s*[\r\n]\s*|" + split_pattern()  # a line break is one word with the indentation after it


def foreign(pre_tokenizer=None, normalizer=None, decoder=None, byte_level=True, removes=False):
    """A BPE tokenizer.

    Args:
        byte_level: begin with bytes as GPT-2 does, or with characters and bytes for those unknown, as SentencePiece.
        removes: the special tokens remove the whitespace after them.
    """
    backend = Tokenizer(models.BPE(byte_fallback=not byte_level))
    if pre_tokenizer:
        backend.pre_tokenizer = pre_tokenizer
    if normalizer:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
    extra = {"initial_alphabet": alphabet} if byte_level else {"special_tokens": [*SPECIAL, *alphabet]}
    trainer = BpeTrainer(vocab_size=700, show_progress=False, **extra)
    backend.train_from_iterator([TEXT.replace("\n", "\n" if byte_level else " ")], trainer)
    backend.decoder = decoder or decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, rstrip=removes, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def byte_level(pattern):
    """Words by a pattern, in bytes."""
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
