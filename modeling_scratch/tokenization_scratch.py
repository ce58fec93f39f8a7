"""Byte-level byte-pair encoding from scratch: train, encode, decode, and out to `tokenizer.json`.

A language model reads numbers. Byte-pair encoding (BPE; Sennrich et al., 2016, https://arxiv.org/abs/1508.07909)
chooses which stretches of text get one. It starts from the 256 bytes, so that every text can be written (Radford et
al., 2019), and then repeats a single step: find the two neighbouring tokens that occur together most often, and make
them one new token. The list of these merges, in order, is the whole tokenizer.

    pieces    text is first cut where no token should reach across: words, numbers, punctuation, line breaks
    training  count the pieces; merge the most frequent pair; repeat until the vocabulary is full
    encoding  inside each piece, apply the merges in the order in which they were learnt
    decoding  put the bytes of the tokens side by side

`save` leaves a folder that `transformers.AutoTokenizer` opens without this file, and whose Rust implementation gives
the same tokens: use that one for bulk text, and this one to see how it works.
"""

import json
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)  # ids 0, 1, 2, 3

# Where no token may reach across, after GPT-4's pattern. The first alternative that matches wins; together they match
# every character, so that nothing is lost.
PATTERN = "|".join(
    [
        r"\s*[\r\n]\s*",  # a line break with the indentation after it: one token opens most lines of Python
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",  # a word with the one character before it: " the", ".append", "_name"
        r"\p{N}{1,3}",  # at most three digits, so that numbers do not fill the vocabulary
        r" ?[^\s\p{L}\p{N}]+",  # punctuation: " ==", "):"
        r"\s+(?!\S)",  # spaces, all but the last, which belongs to the word that follows
        r"\s+",
    ]
)

# ChatML. The loss of instruction tuning falls on what {% generation %} encloses: the assistant's words and the token
# that ends the turn, so that the model learns to stop. The line break after it is the template's, not the assistant's.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# A pair seen once is no pattern: a token for it would only memorise the text.
MINIMUM_COUNT = 2

Pair = tuple[int, int]  # the ids of two neighbouring tokens


def use_version_4_names(folder: str | Path) -> None:
    """Rewrite a `tokenizer_config.json` that transformers 5 saved, so that version 4 and tools built on it open it too.

    Version 5 reads the older names itself, and goes back to its own whenever it saves.
    """
    file = Path(folder) / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def byte_characters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in a vocabulary file (GPT-2's table).

    Bytes that are visible Latin-1 characters stand for themselves. The others (control characters, spaces, the soft
    hyphen) are moved, in order, to the code points from 256 on: the space becomes "Ġ" and the line break "Ċ".
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    moved = iter(range(256, 512))
    return [chr(byte if byte in visible else next(moved)) for byte in range(256)]


def merge_pair(symbols: list[int], pair: Pair, merged: int) -> list[int]:
    """Every occurrence of `pair`, from left to right, replaced by the one token `merged`."""
    left, right = pair
    result, position, last = [], 0, len(symbols) - 1
    while position <= last:
        symbol = symbols[position]
        if symbol == left and position < last and symbols[position + 1] == right:
            result.append(merged)
            position += 2
        else:
            result.append(symbol)
            position += 1
    return result


def learn_merges(
    words: list[list[int]], counts: list[int], next_id: int, vocab_size: int, progress: Callable[[int], None] | None
) -> list[Pair]:
    """The training loop: which pairs to merge, in which order. Merge number i makes the token `next_id + i`.

    Counting all pairs again after every merge would take hours. Two facts make it seconds. A merge changes only the
    words that hold the pair, so an index from pair to words says where to look. And a pair is born in a single step,
    when the younger of its tokens is made; from then on its count can only fall. A heap of counts therefore needs no
    updates in place: an entry that turns out too high when it comes to the top goes back with its true count.

    The most frequent pair comes first, and of equals the one with the smaller ids, as in the Rust `BpeTrainer`.

    Args:
        words: each distinct piece of text as byte ids; overwritten as the merges are applied.
        counts: how often each word occurs.
        progress: called after each merge with the number of merges so far, or None.

    Returns:
        The merges; fewer than asked for when no pair occurs `MINIMUM_COUNT` times any more.
    """
    pair_counts: dict[Pair, int] = defaultdict(int)
    words_with: dict[Pair, set[int]] = defaultdict(set)
    for index, (word, count) in enumerate(zip(words, counts, strict=True)):
        for pair in pairwise(word):
            pair_counts[pair] += count
            words_with[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapify(heap)

    merges: list[Pair] = []
    while heap and next_id < vocab_size:
        negative_count, pair = heap[0]
        count = pair_counts[pair]
        if count != -negative_count:  # it has fallen since
            heapreplace(heap, (-count, pair))
            continue
        if count < MINIMUM_COUNT:
            break
        heappop(heap)
        merges.append(pair)
        born: set[Pair] = set()
        for index in words_with.pop(pair):
            before = words[index]
            after = words[index] = merge_pair(before, pair, next_id)
            if len(after) == len(before):  # an earlier merge took the pair out of this word
                continue
            count = counts[index]
            for old in pairwise(before):
                pair_counts[old] -= count
            for new in pairwise(after):
                pair_counts[new] += count
                if next_id in new:
                    words_with[new].add(index)
                    born.add(new)
        for new in born:
            heappush(heap, (-pair_counts[new], new))
        next_id += 1
        if progress:
            progress(len(merges))
    return merges


class _Tokenizer(ABC):
    """What both tokenizers share: a vocabulary, special tokens that are cut out before anything else, and `save`."""

    def __init__(self, vocab: dict[str, int], special_tokens: tuple[str, ...]):
        self.vocab = vocab
        self.tokens = list(vocab)
        self.special_tokens = tuple(special_tokens)
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    def __len__(self) -> int:
        return len(self.vocab)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. Special tokens written in the text become their own ids."""
        parts = self._special.split(text) if self._special else [text]
        ids = []
        for position, part in enumerate(parts):  # the odd ones are what the pattern's group caught
            if position % 2:
                ids.append(self.vocab[part])
            else:
                ids.extend(self._encode_ordinary(part))
        return ids

    @abstractmethod
    def _encode_ordinary(self, text: str) -> list[int]:
        """Token ids of a stretch of text without special tokens."""

    @abstractmethod
    def to_backend(self) -> Tokenizer:
        """The same tokenizer in the Rust library, whose JSON is the content of `tokenizer.json`."""

    def save(self, folder: str | Path, model_max_length: int = 1024) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` for `AutoTokenizer`.

        Args:
            model_max_length: tokens that the model takes; transformers warns about longer texts.

        Raises:
            ValueError: the vocabulary lacks one of `SPECIAL_TOKENS`, which the chat template needs.
        """
        missing = [token for token in SPECIAL_TOKENS if token not in self.special_tokens]
        if missing:
            raise ValueError(f"a saved tokenizer needs the special tokens {', '.join(missing)}")
        backend = self.to_backend()
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in self.special_tokens])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token=END_OF_TEXT,
            pad_token=PAD,
            extra_special_tokens=[token for token in self.special_tokens if token not in (END_OF_TEXT, PAD)],
            clean_up_tokenization_spaces=False,
            model_max_length=model_max_length,
            chat_template=CHAT_TEMPLATE,
        )
        tokenizer.save_pretrained(folder)
        use_version_4_names(folder)


class ScratchTokenizer(_Tokenizer):
    """A byte-level BPE tokenizer.

    Ids: the special tokens, then the 256 bytes ordered by the character that stands for each, then one id a merge.

    Args:
        merges: pairs of ids in the order in which they were learnt. They determine everything else.
        special_tokens: tokens that no text can produce by merging, such as the end of a document.
    """

    def __init__(self, merges: Iterable[Pair], special_tokens: tuple[str, ...] = SPECIAL_TOKENS):
        alphabet = byte_characters()
        tokens = [*special_tokens, *sorted(alphabet)]
        self._byte_of = {character: byte for byte, character in enumerate(alphabet)}
        self._byte_ids = [len(special_tokens) + sorted(alphabet).index(character) for character in alphabet]
        # The merged token's id grows with every merge, so it also tells which of two pairs was learnt first.
        self._merged: dict[Pair, int] = {}
        for left, right in merges:
            self._merged[left, right] = len(tokens)
            tokens.append(tokens[left] + tokens[right])
        super().__init__({token: index for index, token in enumerate(tokens)}, special_tokens)
        self._pieces = _split_into_pieces()
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: tuple[str, ...] = SPECIAL_TOKENS,
        progress: Callable[[int], None] | None = None,
    ) -> "ScratchTokenizer":
        """Learn the merges from texts.

        Args:
            vocab_size: tokens wanted, special tokens and the 256 bytes included. The result has fewer when the texts
                hold no more pairs that repeat.
            progress: called after each merge with the number of merges so far.

        Raises:
            ValueError: `vocab_size` leaves no room for the 256 bytes.
        """
        untrained = cls([], special_tokens)
        if vocab_size < len(untrained):
            raise ValueError(
                f"a byte-level vocabulary holds at least {len(untrained)} tokens "
                f"(256 bytes and {len(special_tokens)} special ones), not {vocab_size}"
            )
        # Language repeats itself: megabytes of text are some ten thousand distinct pieces.
        occurrences: Counter[str] = Counter()
        for text in texts:
            occurrences.update(piece for piece, _ in untrained._pieces.pre_tokenize_str(text))
        words = [untrained._byte_symbols(piece) for piece in occurrences]
        merges = learn_merges(words, list(occurrences.values()), len(untrained), vocab_size, progress)
        return cls(merges, special_tokens)

    @classmethod
    def load(cls, folder: str | Path) -> "ScratchTokenizer":
        """The tokenizer that `save` left in a folder.

        Raises:
            ValueError: `tokenizer.json` there is some other kind of tokenizer.
        """
        model, special_tokens = _read_tokenizer_json(folder, "BPE")
        ids = model["vocab"]
        tokenizer = cls([(ids[left], ids[right]) for left, right in model["merges"]], special_tokens)
        if tokenizer.vocab != ids:
            raise ValueError(f"{folder}: tokenizer.json numbers its tokens in another way; use AutoTokenizer")
        return tokenizer

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The merges as `tokenizer.json` lists them."""
        return [(self.tokens[left], self.tokens[right]) for left, right in self._merged]

    def _byte_symbols(self, piece: str) -> list[int]:
        return [self._byte_ids[byte] for byte in piece.encode("utf-8")]

    def _encode_ordinary(self, text: str) -> list[int]:
        ids = []
        for piece, _ in self._pieces.pre_tokenize_str(text):
            if piece not in self._cache:
                self._cache[piece] = self._encode_piece(piece)
            ids.extend(self._cache[piece])
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        """Apply the merges in the order in which they were learnt.

        Whole passes are enough: a merge only makes pairs with its own, younger token, and those were learnt later.
        """
        symbols = self._byte_symbols(piece)
        while True:
            known = [(self._merged[pair], pair) for pair in pairwise(symbols) if pair in self._merged]
            if not known:
                return symbols
            merged, pair = min(known)
            symbols = merge_pair(symbols, pair, merged)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids. Bytes that are not UTF-8, as when a character is cut in half, become U+FFFD."""
        content = bytearray()
        for index in ids:
            if index < len(self.special_tokens):
                content += self.tokens[index].encode("utf-8")
            else:
                content += bytes(self._byte_of[character] for character in self.tokens[index])
        return content.decode("utf-8", errors="replace")

    def to_backend(self) -> Tokenizer:
        backend = Tokenizer(models.BPE(vocab=self.vocab, merges=self.merges))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [_split_into_pieces(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
        return backend


class CharacterTokenizer(_Tokenizer):
    """One token a character: the special tokens, then the characters of the training text in code point order."""

    def __init__(self, characters: Iterable[str], special_tokens: tuple[str, ...] = SPECIAL_TOKENS):
        tokens = [*special_tokens, *sorted(set(characters))]
        super().__init__({token: index for index, token in enumerate(tokens)}, special_tokens)

    @classmethod
    def train(cls, texts: Iterable[str], special_tokens: tuple[str, ...] = SPECIAL_TOKENS) -> "CharacterTokenizer":
        """Collect the characters of the texts."""
        return cls(set().union(*texts), special_tokens)

    @classmethod
    def load(cls, folder: str | Path) -> "CharacterTokenizer":
        """The tokenizer that `save` left in a folder.

        Raises:
            ValueError: `tokenizer.json` there is some other kind of tokenizer.
        """
        model, special_tokens = _read_tokenizer_json(folder, "WordLevel")
        return cls(set(model["vocab"]) - set(special_tokens), special_tokens)

    def _encode_ordinary(self, text: str) -> list[int]:
        try:
            return [self.vocab[character] for character in text]
        except KeyError as error:
            raise ValueError(f"the character {error} is not in this character-level vocabulary") from None

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids."""
        return "".join(self.tokens[index] for index in ids)

    def to_backend(self) -> Tokenizer:
        # WordLevel without an unknown token refuses a character it does not know; BPE would drop it without a word.
        backend = Tokenizer(models.WordLevel(vocab=self.vocab))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        return backend


def _split_into_pieces() -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(PATTERN), "isolated")


def _read_tokenizer_json(folder: str | Path, kind: str) -> tuple[dict, tuple[str, ...]]:
    """The model of a `tokenizer.json`, and its special tokens in the order of their ids."""
    content = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    model = content["model"]
    if model["type"] != kind:
        raise ValueError(f"{folder}: tokenizer.json holds a {model['type']} tokenizer, not a {kind} one")
    added = sorted(content["added_tokens"], key=lambda token: token["id"])
    return model, tuple(token["content"] for token in added)
