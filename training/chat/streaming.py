"""Text from tokens while they are made, every character whole."""

from collections.abc import Callable

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

UNDECODED = "\ufffd"  # what tokenizers decode bytes to that are no character, or not yet one
PENDING = 3  # how many of those at the end of a text may still become one: UTF-8 takes at most four bytes


class CharacterStreamer(BaseStreamer):
    """Hands on what a model says as soon as it is certain: with every token, but for a character that lacks bytes.

    transformers' `TextStreamer` waits for the space behind a word, so that text without spaces arrives line by line.
    All that is handed on makes up the answer as the tokenizer decodes it, bytes that are no character as U+FFFD.

    Args:
        write: takes the pieces of text, none of them empty.

    Attributes:
        ids: of the answer so far. It may take several calls of `generate`, each of which begins with its prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None]):
        self.tokenizer, self.write = tokenizer, write
        self.ids: list[int] = []
        self._prompt_comes_first = True
        self._start = self._end = 0  # of the tokens handed on last. The next are decoded behind them, for their spaces
        self._shown = ""  # the text of those

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompt, (1, seq), and then the tokens one by one, (1,)."""
        if self._prompt_comes_first:
            self._prompt_comes_first = False
            return
        self.ids += value.tolist()
        text = self._decode(self._start)
        undecoded = len(text) - len(text.rstrip(UNDECODED))
        # Some tokenizers decode a row of bytes as one, so that a torn character takes those before it along.
        if not undecoded or text.startswith(self._shown):
            self._hand_on(text, len(text) - min(PENDING, undecoded))

    def end(self) -> None:
        self._prompt_comes_first = True

    def flush(self) -> None:
        """Hand on what was held back: nothing follows that could complete it."""
        text = self._decode(self._start)
        self._hand_on(text, len(text))

    def text(self) -> str:
        """The answer so far."""
        return self._decode(0)

    def _hand_on(self, text: str, certain: int) -> None:
        piece = text[len(self._shown) : certain]
        if not piece:
            return
        self._shown += piece
        if certain == len(text):
            self._start, self._end = self._end, len(self.ids)
            self._shown = self._decode(self._start)
        self.write(piece)

    def _decode(self, start: int) -> str:
        return self.tokenizer.decode(self.ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
