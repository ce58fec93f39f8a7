"""The simplest tokenizer: one token per character."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from .tokenization_base import SPECIAL_TOKENS, UNKNOWN, BaseTokenizer, read_tokenizer_json


class CharacterTokenizer(BaseTokenizer):
    """A character-level tokenizer. Ids: the special tokens, then the characters in code point order.

    Args:
        characters: the vocabulary.
        special_tokens: with `UNKNOWN` among them, it stands for each character that the vocabulary does not have.
            Otherwise such a character is an error.
    """

    def __init__(self, characters: Iterable[str], special_tokens: tuple[str, ...] = (*SPECIAL_TOKENS, UNKNOWN)):
        tokens = [*special_tokens, *sorted(set(characters))]
        self._size = len(tokens)
        super().__init__(tokens, special_tokens)

    @classmethod
    def train(cls, texts: Iterable[str], unknown: bool = True) -> "CharacterTokenizer":
        """Collect the characters of the texts.

        Args:
            unknown: have a token for unknown characters.
        """
        return cls(set().union(*texts), (*SPECIAL_TOKENS, UNKNOWN) if unknown else SPECIAL_TOKENS)

    @classmethod
    def load(cls, folder: str | Path) -> "CharacterTokenizer":
        """The tokenizer that `save` wrote to a folder, including tokens that transformers has added since.

        Raises:
            ValueError: `tokenizer.json` is damaged, or holds another kind of tokenizer.
        """
        file, model, added, _ = read_tokenizer_json(folder, "WordLevel")
        known = (token["content"] for token in added if token["special"])
        special_tokens = tuple(content for content in known if content in model["vocab"])
        tokenizer = cls(set(model["vocab"]) - set(special_tokens), special_tokens)
        if tokenizer.vocab != model["vocab"]:
            raise ValueError(f"{file} orders its tokens differently; use AutoTokenizer")
        tokenizer.add_as_saved(added, file)
        return tokenizer

    def _encode_ordinary(self, text: str) -> list[int]:
        if UNKNOWN in self.special_tokens:
            unknown = self.vocab[UNKNOWN]
            return [self.vocab.get(character, unknown) for character in text]
        try:
            return [self.vocab[character] for character in text]
        except KeyError as error:
            raise ValueError(f"the character {error} is not in this character-level vocabulary") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids."""
        return "".join(self.tokens[index] for index in ids)

    def to_backend(self) -> Tokenizer:
        # WordLevel without an unknown token raises on an unknown character; BPE would drop it silently.
        unknown = {"unk_token": UNKNOWN} if UNKNOWN in self.special_tokens else {}
        vocab = dict(zip(self.tokens[: self._size], range(self._size)))
        backend = Tokenizer(models.WordLevel(vocab=vocab, **unknown))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        return backend
