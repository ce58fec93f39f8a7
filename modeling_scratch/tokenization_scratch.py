"""Byte-level byte-pair encoding from scratch: train, encode, decode, and out to `tokenizer.json`.

A language model reads numbers. Byte-pair encoding (BPE; Sennrich et al., 2016, https://arxiv.org/abs/1508.07909)
chooses which stretches of text get one. It starts from the 256 bytes, so that every text can be written (Radford et
al., 2019), and then repeats a single step: find the two neighbouring tokens that occur together most often, and make
them one new token. The list of these merges, in order, is the whole tokenizer.

    words     text is first cut where no token should reach across: words, numbers, punctuation, line breaks
    training  count the words; merge the most frequent pair inside them; repeat until the vocabulary is full
    encoding  inside each word, merge the pair of the lowest rank, the one learnt first, until no pair has a rank
    decoding  put the bytes of the tokens side by side

`save` leaves a folder that `transformers.AutoTokenizer` opens without this file, and whose Rust implementation gives
the same tokens: use that one for bulk text, and this one to see how it works.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise, product
from math import inf
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from .tokenization_base import SPECIAL_TOKENS, BaseTokenizer, read_tokenizer_json

# Where no token may reach across, after GPT-4's pattern. The first alternative that matches wins; together they match
# every character, so that nothing is lost.
_WORD = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"  # with the one character before it: " the", ".append", "_name"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+"  # " ==", "):"
_LINE_BREAK = r"\s*[\r\n]\s*"  # with the indentation after it: one token opens most lines of Python
_SPACES = r"\s+(?!\S)"  # all but the last, which belongs to the word that follows

DIGITS = (1, 2, 3)
WHITESPACE = ("runs", "single")


def split_pattern(digits: int = 3, whitespace: str = "runs") -> str:
    """The regular expression whose matches are the words, in the dialect of the Rust library (Oniguruma).

    Args:
        digits: how many digits a token holds at most. With 1, numbers are spelt out and line up digit by digit; with
            3 they are shorter. Without a limit they would fill the vocabulary.
        whitespace: "runs" lets one token be a line break with the indentation after it, or a row of spaces; "single"
            makes a token of every character of white space but the one space before a word.

    Raises:
        ValueError: not one of `DIGITS`, not one of `WHITESPACE`.
    """
    if digits not in DIGITS:
        raise ValueError(f"'digits' must be one of {', '.join(map(str, DIGITS))}, not {digits!r}")
    if whitespace not in WHITESPACE:
        raise ValueError(f"'whitespace' must be one of {', '.join(WHITESPACE)}, not {whitespace!r}")
    number = rf"\p{{N}}{{1,{digits}}}"
    if whitespace == "single":
        return "|".join([_WORD, number, _PUNCTUATION, r"\s"])
    return "|".join([_LINE_BREAK, _WORD, number, _PUNCTUATION, _SPACES, r"\s+"])


# A pair seen once is no pattern: a token for it would only memorise the text.
MINIMUM_COUNT = 2

# Bytes from which on a word is merged with a heap.
LONG_WORD = 256

Pair = tuple[int, int]  # the ids of two neighbouring tokens


def byte_characters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in a vocabulary file (GPT-2's table).

    Bytes that are visible Latin-1 characters stand for themselves. The others (control characters, spaces, the soft
    hyphen) are moved, in order, to the code points from 256 on: the space becomes "Ġ" and the line break "Ċ".
    """
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    moved = iter(range(256, 512))
    return [chr(byte if byte in visible else next(moved)) for byte in range(256)]


def merge_pair(
    word: list[int], pair: Pair, merged: int, count: int, pair_counts: dict[Pair, int]
) -> tuple[list[int], set[Pair]]:
    """One word with every occurrence of a pair, from left to right, replaced by the token `merged`.

    Args:
        word: token ids.
        count: how often the word occurs.
        pair_counts: brought up to date: where a pair is merged, the pairs with its neighbours change.

    Returns:
        The new word, and the pairs in it that hold `merged`.
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
    """The training loop: which pairs to merge, in which order. Merge number i makes the token `next_id + i`.

    Counting all pairs again after every merge would take minutes for megabytes, hours for more. Two facts make it
    seconds. A merge changes only the words that hold the pair, so an index from pair to words says where to look. And
    a pair is born in a single step, when the younger of its tokens is made; from then on its count can only fall. A
    heap of counts therefore needs no updates in place: an entry that turns out too high when it comes to the top goes
    back with its true count.

    The most frequent pair comes first, and of equals the one with the smaller ids, as in the Rust `BpeTrainer`.

    Args:
        words: each distinct word as byte ids; overwritten as the merges are applied.
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
        for index in words_with.pop(pair):  # in some, an earlier merge has taken the pair out again
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

    Ids: the special tokens, then the 256 bytes ordered by the character that stands for each, then one id a merge.

    Args:
        merges: pairs of ids in the order in which they were learnt.
        special_tokens: tokens that no text can produce by merging, such as the end of a document.
        digits, whitespace: where the text is cut into words, see `split_pattern`.

    Attributes:
        ranks: pair to its rank, the number of merges learnt before it. Of rank r is the token `first_merged + r`.
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
        self._cache: dict[str, list[int]] = {}
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
            vocab_size: tokens wanted, special tokens and the 256 bytes included. The result has fewer when the texts
                hold no more pairs that repeat.
            progress: called after each merge with the number of merges so far.

        Raises:
            ValueError: `vocab_size` leaves no room for the 256 bytes, or a text is not Unicode.
        """
        untrained = cls([], special_tokens, digits, whitespace)
        if vocab_size < len(untrained):
            raise ValueError(
                f"a byte-level vocabulary holds at least {len(untrained)} tokens "
                f"(256 bytes and {len(untrained.special_tokens)} special ones), not {vocab_size}"
            )
        word_counts = untrained.count_words(texts)
        words = [untrained._byte_symbols(word) for word in word_counts]
        merges = learn_merges(words, list(word_counts.values()), len(untrained), vocab_size, progress)
        return cls(merges, special_tokens, digits, whitespace)

    @classmethod
    def load(cls, folder: str | Path) -> "ScratchTokenizer":
        """The tokenizer that `save` left in a folder, with what `add_tokens` of transformers has added since.

        Raises:
            ValueError: `tokenizer.json` there is damaged, or a tokenizer that this class is not.
        """
        file, model, added, splits = read_tokenizer_json(folder, "BPE")
        patterns = {split_pattern(*options): options for options in product(DIGITS, WHITESPACE)}
        options = next((patterns[split] for split in splits if split in patterns), None)
        if options is None:
            raise ValueError(f"{file} cuts text into words in another way; use AutoTokenizer")
        try:
            ids = model["vocab"]
            merges = [(ids[left], ids[right]) for left, right in model["merges"]]
            special_tokens = tuple(token["content"] for token in added[: len(ids) - len(merges) - 256])
            tokenizer = cls(merges, special_tokens, *options)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{file} is damaged: its merges do not fit its vocabulary") from None
        except IndexError:  # a merge of tokens that are made later
            tokenizer = None
        if tokenizer is None or tokenizer.vocab != ids:
            raise ValueError(f"{file} numbers its tokens in another way; use AutoTokenizer")
        tokenizer.add_as_saved(added, file)
        return tokenizer

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The merges as `tokenizer.json` lists them."""
        return [(self.tokens[left], self.tokens[right]) for left, right in self.ranks]

    def add_tokens(self, tokens: Iterable[str], special: bool = False) -> None:
        tokens = list(tokens)
        for token in tokens:
            # In the Rust library each of their characters would stand for a byte: "é" would come back as half a letter.
            if token not in self.vocab and not token.isascii() and set(token) <= set(byte_characters()):
                raise ValueError(f"{token!r} cannot be added: tokenizer.json has no way to tell its letters from bytes")
        super().add_tokens(tokens, special)
        self._bytes += [token.encode() for token in self.tokens[len(self._bytes) :]]

    def split(self, text: str) -> list[str]:
        """The words of a text: the stretches inside which tokens are merged. Joined, they are the text.

        Raises:
            ValueError: half of a surrogate pair, which is a code point but no character.
        """
        try:
            return [word for word, _ in self._splitter.pre_tokenize_str(text)]
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise ValueError(f"the text holds half of a surrogate pair (U+{half:04X}), which has no UTF-8") from None

    def count_words(self, texts: Iterable[str]) -> Counter[str]:
        """How often each word occurs. Language repeats itself: megabytes of text are some ten thousand words."""
        word_counts: Counter[str] = Counter()
        for text in texts:
            word_counts.update(self.split(text))
        return word_counts

    def _byte_symbols(self, word: str) -> list[int]:
        return [self._byte_ids[byte] for byte in word.encode()]

    def _encode_ordinary(self, text: str) -> list[int]:
        ids = []
        for word in self.split(text):
            if word not in self._cache:
                symbols = self._byte_symbols(word)
                self._cache[word] = self._merge(symbols) if len(symbols) < LONG_WORD else self._merge_long(symbols)
            ids.extend(self._cache[word])
        return ids

    def _merge(self, symbols: list[int]) -> list[int]:
        """Token ids of a word, given those of its bytes. Again and again the pair of the lowest rank is merged."""
        ranks = [self.ranks.get(pair, inf) for pair in pairwise(symbols)]  # that of symbols[i] and symbols[i + 1]
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

    def _merge_long(self, symbols: list[int]) -> list[int]:
        """The same as `_merge`, in n log n steps instead of n²: a row of a hundred thousand signs is one word too.

        The pairs wait in a heap, and a merge leaves a gap (None) in the place of its right token.
        """
        length = len(symbols)
        left_of, right_of = list(range(-1, length - 1)), list(range(1, length + 1))
        heap = [(self.ranks[pair], place) for place, pair in enumerate(pairwise(symbols)) if pair in self.ranks]
        heapify(heap)
        while heap:
            rank, place = heappop(heap)
            right = right_of[place]
            if right == length or self.ranks.get((symbols[place], symbols[right])) != rank:
                continue  # one of the two has been merged with its other neighbour since
            symbols[place], symbols[right] = self.first_merged + rank, None
            right = right_of[place] = right_of[right]
            if right < length:
                left_of[right] = place
            for left, right in ((left_of[place], place), (place, right)):
                if left >= 0 and right < length and (symbols[left], symbols[right]) in self.ranks:
                    heappush(heap, (self.ranks[symbols[left], symbols[right]], left))
        return [symbol for symbol in symbols if symbol is not None]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids. Bytes that are not UTF-8, as when a character is cut in half, become U+FFFD."""
        return b"".join([self._bytes[index] for index in ids]).decode("utf-8", errors="replace")

    def to_backend(self) -> Tokenizer:
        size = self.first_merged + len(self.ranks)
        backend = Tokenizer(models.BPE(vocab=dict(zip(self.tokens[:size], range(size))), merges=self.merges))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [self._splitter, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
        return backend
