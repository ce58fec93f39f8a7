"""Letters, digits and marks that llama.cpp does not know as such: text with them may be split differently there.

Its tables (src/unicode-data.cpp) have Unicode 15.1, and `tokenizers` has 16.0. No other code point differed in what was
tried; a release test compares each of the 1,112,064 by four patterns.
"""

import torch
from transformers import PreTrainedTokenizerBase

_NAMED = 5  # letters in a message; the number of all is beside them
# With digits.
_LETTERS = """
1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D40-10D65 10D6F-10D85 10EC2-10EC4 11380-11389 1138B-1138B 1138E-1138E
11390-113B5 113B7-113B7 113D1-113D1 113D3-113D3 116D0-116E3 11BC0-11BE0 11BF0-11BF9 13460-143FA 16100-1611D
16130-16139 16D40-16D6C 16D70-16D79 18CFF-18CFF 1CCF0-1CCF9 1E5D0-1E5ED 1E5F0-1E5FA
"""
# Marks are punctuation to most split patterns. To qwen35 they are parts of words.
_MARKS = """
0897-0897 10D69-10D6D 10EFC-10EFC 113B8-113C0 113C2-113C2 113C5-113C5 113C7-113CA 113CC-113D0 113D2-113D2 113E1-113E2
11F5A-11F5A 1611E-1612F 1E5EE-1E5EF
"""


def _characters(ranges: str) -> frozenset[str]:
    ends = [[int(end, 16) for end in part.split("-")] for part in ranges.split()]
    return frozenset(chr(code) for first, last in ends for code in range(first, last + 1))


_UNKNOWN_LETTERS, _UNKNOWN_MARKS = _characters(_LETTERS), _characters(_MARKS)


def unknown_characters(pre: str) -> frozenset[str]:
    """The characters that llama.cpp takes for others than they are, with the split pattern `pre`."""
    return _UNKNOWN_LETTERS | _UNKNOWN_MARKS if pre == "qwen35" else _UNKNOWN_LETTERS


def unknown_letters(tokenizer: PreTrainedTokenizerBase, held_out: torch.Tensor | None, pre: str) -> str:
    """The letters that a model has met and llama.cpp does not know, by their code points; empty if there are none.

    Args:
        pre: llama.cpp's name of the split pattern.
        tokenizer: the vocabulary shows those that are frequent in the training text.
        held_out: (tokens,) of text like the training text, if there is any.
    """
    text = "".join(tokenizer.batch_decode([[index] for index in range(len(tokenizer))]))
    if held_out is not None:
        text += tokenizer.decode(held_out)
    found = sorted(unknown_characters(pre).intersection(text))
    rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(f"U+{ord(letter):04X}" for letter in found[:_NAMED]) + rest
