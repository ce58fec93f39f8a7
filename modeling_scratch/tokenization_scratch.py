"""Byte-level byte-pair encoding (BPE) from scratch: train, encode, decode, and save as `tokenizer.json`.

A language model reads numbers. BPE (Sennrich et al., 2016, https://arxiv.org/abs/1508.07909) chooses which pieces of
text get one. It starts from the 256 bytes, so that every text can be written (Radford et al., 2019), and repeats a
single step: find the two adjacent tokens that occur together most often, and merge them into a new token. The list of
these merges, in order, is the whole tokenizer.

    words     text is first split into words, numbers, punctuation and line breaks; no token crosses a boundary
    training  count the words; merge the most frequent pair inside them; repeat until the vocabulary is full
    encoding  inside each word, merge the pair of the lowest rank (learned first), until no pair has a rank
    decoding  concatenate the bytes of the tokens

`save` writes a folder that `transformers.AutoTokenizer` opens without this file. Its Rust implementation gives the same
tokens and is much faster: use it for bulk text, and this file to see how BPE works.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain, pairwise, product
from math import inf
from pathlib import Path

from tokenizers import PreTokenizedString, Regex, Tokenizer, decoders, models, pre_tokenizers

from .merging_scratch import Pair, RoundMerger
from .tokenization_base import SPECIAL_TOKENS, BaseTokenizer, read_tokenizer_json

# The words that no token crosses. The first alternative that matches wins; together they match every character, so
# nothing is lost. With whitespace "runs", 3 digits give the pattern of Llama 3 and 1 digit that of Qwen 2, character by
# character: llama.cpp cannot read a pattern from a file, and knows these two by name.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"  # with the one character before it: " the", ".append", "_name"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+"  # " ==", "):"
_LINE_BREAKS = r"\s*[\r\n]+"  # with empty lines; the indentation after them is a word of its own
_SPACES = r"\s+(?!\S)"  # all but the last, which belongs to the next word

DIGITS = (1, 2, 3)
WHITESPACE = ("runs", "single")


def split_pattern(digits: int = 3, whitespace: str = "runs") -> str:
    """The regular expression that matches words, in a dialect that the Rust library (Oniguruma), tiktoken and
    llama.cpp share.

    Args:
        digits: maximum number of digits in a token. 1 spells numbers digit by digit; 3 makes them shorter. Without a
            limit, numbers would fill the vocabulary. llama.cpp has no pattern for 2.
        whitespace: "runs" allows tokens of several spaces or line breaks; "single" makes every whitespace character a
            token, except the one space before a word. llama.cpp has no pattern for "single".

    Raises:
        ValueError: not one of `DIGITS`, not one of `WHITESPACE`.
    """
    if digits not in DIGITS:
        raise ValueError(f"'digits' must be one of {', '.join(map(str, DIGITS))}, not {digits!r}")
    if whitespace not in WHITESPACE:
        raise ValueError(f"'whitespace' must be one of {', '.join(WHITESPACE)}, not {whitespace!r}")
    number = r"\p{N}" if digits == 1 else rf"\p{{N}}{{1,{digits}}}"
    words = [_CONTRACTION, _WORD, number]
    if whitespace == "single":
        return "|".join([*words, _PUNCTUATION, r"\s"])
    return "|".join([*words, rf"{_PUNCTUATION}[\r\n]*", _LINE_BREAKS, _SPACES, r"\s+"])


# A token for a pair that occurs once would only memorise the text.
MINIMUM_COUNT = 2

# A text with this many characters in words that are not in the cache has them merged in rounds (merging_scratch.py).
MANY_CHARACTERS = 1000


def byte_characters() -> list[str]:
    """The printable character for each of the 256 bytes in a vocabulary file (GPT-2's table).

    Bytes that are visible Latin-1 characters are their own character. The others (control characters, spaces, the soft
    hyphen) are moved, in order, to the code points from 256 on: the space becomes "Ġ" and the line break "Ċ".
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    moved = iter(range(256, 512))
    return [chr(byte if byte in visible else next(moved)) for byte in range(256)]


def merge_pair(
    word: list[int], pair: Pair, merged: int, count: int, pair_counts: dict[Pair, int]
) -> tuple[list[int], set[Pair]]:
    """Replace every occurrence of a pair in a word, from left to right, by the token `merged`.

    Args:
        word: token ids.
        count: how often the word occurs.
        pair_counts: updated in place: each merge changes the pairs with its neighbours.

    Returns:
        The new word, and its pairs that contain `merged`.
    """
    left, right = pair
    result, born = [], set()
    position, end = 0, len(word)
    while position < end:
        symbol = word[position]
        if symbol != left or position + 1 == end or word[position + 1] != right:
            result.append(symbol)
            position += 1
            continue
        position += 2
        if result:
            before = result[-1]
            pair_counts[before, left] -= count
            pair_counts[before, merged] += count
            born.add((before, merged))
        if position < end:
            after = word[position]
            pair_counts[right, after] -= count
            pair_counts[merged, after] += count
            born.add((merged, after))
        result.append(merged)
    return result, born


def learn_merges(
    words: list[list[int]], counts: list[int], next_id: int, vocab_size: int, progress: Callable[[int], None] | None
) -> list[Pair]:
    """The merges in the order in which training learns them. Merge number i makes the token `next_id + i`.

    Counting all pairs again after every merge would take minutes for megabytes, and hours for more. Two facts reduce it
    to seconds. A merge changes only the words that contain the pair, so an index from pairs to words finds them. And a
    pair first appears when the newer of its tokens is made; from then on its count can only fall. A heap of counts
    therefore needs no updates in place: an entry whose count has fallen is pushed back with the current one when it
    reaches the top.

    The most frequent pair is merged first; of equally frequent ones, that with the smaller ids, as in the Rust
    `BpeTrainer`.

    Args:
        words: each distinct word as byte ids; overwritten as the merges are applied.
        counts: how often each word occurs.
        progress: called after each merge with the number of merges so far, or None.

    Returns:
        The merges; fewer than requested once no pair occurs `MINIMUM_COUNT` times.
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
        if count != -negative_count:  # its count has fallen since
            heapreplace(heap, (-count, pair))
            continue
        if count < MINIMUM_COUNT:
            break
        heappop(heap)
        merges.append(pair)
        born: set[Pair] = set()
        for index in words_with.pop(pair):  # some no longer contain the pair, after earlier merges
            words[index], new_pairs = merge_pair(words[index], pair, next_id, counts[index], pair_counts)
            for new in new_pairs:
                words_with[new].add(index)
            born |= new_pairs
        for new in born:
            heappush(heap, (-pair_counts[new], new))
        next_id += 1
        if progress:
            progress(len(merges))
    return merges


class ScratchTokenizer(BaseTokenizer):
    """A byte-level BPE tokenizer.

    Ids: the special tokens, then the 256 bytes ordered by their characters, then one id per merge.

    Args:
        merges: pairs of ids in the order in which they were learned.
        special_tokens: tokens that no text can produce by merging, such as the end of a document.
        digits, whitespace: how text is split into words, see `split_pattern`.

    Attributes:
        ranks: pair to its rank, the number of merges learned before it. Rank r makes the token `first_merged + r`.
    """

    def __init__(
        self,
        merges: Iterable[Pair],
        special_tokens: tuple[str, ...] = SPECIAL_TOKENS,
        digits: int = 3,
        whitespace: str = "runs",
    ):
        self.digits, self.whitespace = digits, whitespace
        self._splitter = pre_tokenizers.Split(Regex(split_pattern(digits, whitespace)), "isolated")
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        tokens = [*special_tokens, *sorted(byte_of)]
        self._bytes = [token.encode() for token in special_tokens] + [bytes([byte_of[c]]) for c in sorted(byte_of)]
        self._byte_ids = {byte_of[c]: index for index, c in enumerate(sorted(byte_of), start=len(special_tokens))}
        self.first_merged = len(tokens)
        self.ranks: dict[Pair, int] = {}
        for rank, (left, right) in enumerate(merges):
            self.ranks[left, right] = rank
            tokens.append(tokens[left] + tokens[right])
            self._bytes.append(self._bytes[left] + self._bytes[right])
        self._cache: dict[str, tuple[int, ...]] = {}
        super().__init__(tokens, special_tokens)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: tuple[str, ...] = SPECIAL_TOKENS,
        digits: int = 3,
        whitespace: str = "runs",
        progress: Callable[[int], None] | None = None,
    ) -> "ScratchTokenizer":
        """Learn the merges from texts.

        Args:
            vocab_size: number of tokens, including special tokens and the 256 bytes. The result has fewer if the texts
                contain no more repeated pairs.
            progress: called after each merge with the number of merges so far.

        Raises:
            ValueError: `vocab_size` is too small for the 256 bytes, or a text is not Unicode.
        """
        untrained = cls([], special_tokens, digits, whitespace)
        if vocab_size < len(untrained):
            raise ValueError(
                f"a byte-level vocabulary needs at least {len(untrained)} tokens "
                f"(256 bytes and {len(untrained.special_tokens)} special ones), not {vocab_size}"
            )
        word_counts = untrained.count_words(texts)
        words = [untrained._byte_symbols(word) for word in word_counts]
        merges = learn_merges(words, list(word_counts.values()), len(untrained), vocab_size, progress)
        return cls(merges, special_tokens, digits, whitespace)

    @classmethod
    def load(cls, folder: str | Path) -> "ScratchTokenizer":
        """The tokenizer that `save` wrote to a folder, including tokens that transformers has added since.

        Raises:
            ValueError: `tokenizer.json` is damaged, or holds another kind of tokenizer.
        """
        file, model, added, splits = read_tokenizer_json(folder, "BPE")
        patterns = {split_pattern(*options): options for options in product(DIGITS, WHITESPACE)}
        options = next((patterns[split] for split in splits if split in patterns), None)
        if options is None:
            raise ValueError(f"{file} splits text into words differently; use AutoTokenizer")
        try:
            ids = model["vocab"]
            merges = [(ids[left], ids[right]) for left, right in model["merges"]]
            special_tokens = tuple(token["content"] for token in added[: len(ids) - len(merges) - 256])
            tokenizer = cls(merges, special_tokens, *options)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{file} is damaged: its merges do not fit its vocabulary") from None
        except IndexError:  # a merge of tokens that only later merges make
            tokenizer = None
        if tokenizer is None or tokenizer.vocab != ids:
            raise ValueError(f"{file} orders its tokens differently; use AutoTokenizer")
        tokenizer.add_as_saved(added, file)
        return tokenizer

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The merges as `tokenizer.json` lists them."""
        return [(self.tokens[left], self.tokens[right]) for left, right in self.ranks]

    def add_tokens(self, tokens: Iterable[str], special: bool = False) -> None:
        """Append tokens to the vocabulary, as in the base class.

        Raises:
            ValueError: an empty token, or one that tokenizer.json would confuse with bytes.
        """
        tokens = list(tokens)
        for token in tokens:
            # The Rust library would read each of their characters as a byte: "é" would decode to half a character.
            if token not in self.vocab and not token.isascii() and set(token) <= set(byte_characters()):
                raise ValueError(f"{token!r} cannot be added: tokenizer.json cannot tell its characters from bytes")
        super().add_tokens(tokens, special)
        self._bytes += [token.encode() for token in self.tokens[len(self._bytes) :]]

    def split(self, text: str) -> list[str]:
        """The words of a text, within which tokens are merged. Joined, they are the text.

        Raises:
            ValueError: half of a surrogate pair, which is a code point but not a character.
        """
        try:
            whole = PreTokenizedString(text)
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise ValueError(f"the text contains half of a surrogate pair (U+{half:04X}), which has no UTF-8") from None
        self._splitter.pre_tokenize(whole)
        return [word for word, *_ in whole.get_splits(offset_type="byte")]  # it takes longer to count characters

    def count_words(self, texts: Iterable[str]) -> Counter[str]:
        """Count of each word. Megabytes of text have only some ten thousand distinct words."""
        word_counts: Counter[str] = Counter()
        for text in texts:
            word_counts.update(self.split(text))
        return word_counts

    def _byte_symbols(self, word: str) -> list[int]:
        return [self._byte_ids[byte] for byte in word.encode()]

    def _encode_ordinary(self, text: str) -> list[int]:
        words = self.split(text)
        self._merge_words(set(words).difference(self._cache))
        return list(chain.from_iterable(map(self._cache.__getitem__, words)))

    def _merge_words(self, words: set[str]) -> None:
        """Put the token ids of words into the cache."""
        if sum(map(len, words)) < MANY_CHARACTERS:
            for word in words:
                self._cache[word] = tuple(self._merge(self._byte_symbols(word)))
        else:
            self._cache.update(zip(words, self._round_merger.merge(words), strict=True))

    @cached_property
    def _round_merger(self) -> RoundMerger:
        return RoundMerger(self.ranks, self._byte_ids, self.first_merged)

    def _merge(self, symbols: list[int]) -> list[int]:
        """Token ids of a word from those of its bytes: merge the pair of the lowest rank until none has a rank."""
        ranks = [self.ranks.get(pair, inf) for pair in pairwise(symbols)]  # of symbols[i] and symbols[i + 1]
        while ranks:
            rank = min(ranks)
            if rank == inf:
                break
            place = ranks.index(rank)
            merged = self.first_merged + rank
            symbols[place : place + 2] = [merged]
            del ranks[place]
            if place > 0:
                ranks[place - 1] = self.ranks.get((symbols[place - 1], merged), inf)
            if place < len(ranks):
                ranks[place] = self.ranks.get((merged, symbols[place + 1]), inf)
        return symbols

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids. Bytes that are not UTF-8, such as part of a character, become U+FFFD."""
        return b"".join([self._bytes[index] for index in ids]).decode("utf-8", errors="replace")

    def to_backend(self) -> Tokenizer:
        size = self.first_merged + len(self.ranks)
        backend = Tokenizer(models.BPE(vocab=dict(zip(self.tokens[:size], range(size))), merges=self.merges))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [self._splitter, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
        return backend
