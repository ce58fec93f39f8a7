"""Streaming of an answer: text from tokens as they are generated, in whole characters."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from training.model_io.tokenizers import UNDECODED

PENDING = 3  # at most so many at the end of a text may still become a character: UTF-8 uses up to four bytes


class CharacterStreamer(BaseStreamer):
    """Writes text with every token, holding back only a character that still lacks bytes.

    transformers' `TextStreamer` waits for the space after a word, so text without spaces arrives line by line. The
    pieces written here add up to the answer as the tokenizer decodes it; invalid bytes become U+FFFD.

    Args:
        write: receives the pieces of text, none of them empty.
        after: tokens of the text before, if the answer continues a text.

    Attributes:
        ids: `after`, and the answer's tokens so far. The answer may take several calls of `generate`, each of which
            sends its prompt first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None], after: Sequence[int] = ()):
        self.tokenizer, self.write = tokenizer, write
        self.ids = list(after)
        self._prompt_comes_first = True
        # The last written tokens, ids[_start:_end]. The next tokens are decoded after them, for the right spaces.
        self._start, self._end = 0, len(self.ids)
        self._written = self._decode(0)  # text of these tokens

    def put(self, value: torch.Tensor) -> None:
        """Receive the prompt, (1, seq), then the tokens one by one, (1,)."""
        if self._prompt_comes_first:
            self._prompt_comes_first = False
            return
        self.add(value.tolist())

    def add(self, ids: list[int]) -> None:
        """Receive the next tokens."""
        self.ids += ids
        text = self._decode(self._start)
        undecoded = len(text) - len(text.rstrip(UNDECODED))
        # Some tokenizers decode consecutive bytes together: an incomplete character then changes the text before it.
        if not undecoded or text.startswith(self._written):
            self._write(text, len(text) - min(PENDING, undecoded))

    def end(self) -> None:
        """Expect the prompt of the next call of `generate`."""
        self._prompt_comes_first = True

    def flush(self) -> None:
        """Write the text that was held back, because no further bytes will complete it."""
        text = self._decode(self._start)
        self._write(text, len(text))

    def text(self) -> str:
        """The text of `ids`."""
        return self._decode(0)

    def _write(self, text: str, certain: int) -> None:
        piece = text[len(self._written) : certain]
        if not piece:
            return
        self._written += piece
        if certain == len(text):
            self._start, self._end = self._end, len(self.ids)
            self._written = self._decode(self._start)
        self.write(piece)

    def _decode(self, start: int) -> str:
        return self.tokenizer.decode(self.ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
