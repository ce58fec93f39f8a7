"""The words, lines and paragraphs of a text, found once and read by all rules."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import itemgetter

_LETTER = re.compile(r"[^\W\d_]")


class Statistics:
    """Statistics of one text, computed only when a rule asks for them.

    Words are separated by whitespace and include punctuation, so that they cost one `str.split`. Lines and
    paragraphs are stripped, and blank ones do not count.
    """

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def word_counts(self) -> Counter[str]:
        return Counter(self.words)

    @cached_property
    def lines(self) -> list[str]:
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        return [paragraph for paragraph in map(str.strip, self.text.split("\n\n")) if paragraph]

    @cached_property
    def lowered(self) -> str:
        return self.text.lower()

    def per_word(self, count: int) -> float:
        return count / max(len(self.words), 1)

    def per_line(self, count: int) -> float:
        return count / max(len(self.lines), 1)

    def per_character(self, count: int) -> float:
        return count / max(len(self.text), 1)

    @cached_property
    def visible_characters(self) -> int:
        return sum(map(len, self.words))

    @cached_property
    def words_with_letter(self) -> int:
        counts = self.word_counts
        without = (word for word in counts if not word[0].isalpha() and not _LETTER.search(word))
        return len(self.words) - sum(counts[word] for word in without)

    def top_gram_share(self, n: int) -> float:
        """Share of the characters in the most frequent n-gram; 0 if none occurs twice."""
        grams = Counter(map(" ".join, self._grams(n)))
        top, count = max(grams.items(), key=itemgetter(1), default=("", 0))
        return self.per_character(count * len(top)) if count > 1 else 0.0

    def _grams(self, n: int) -> Iterator[tuple[str, ...]]:
        return zip(*(self.words[start:] for start in range(n)))

    @cached_property
    def _heaviest_word(self) -> tuple[int, int]:
        """Most characters of one word over all its occurrences, and most occurrences of one word."""
        counts = self.word_counts
        heaviest = max((len(word) * count for word, count in counts.items()), default=0)
        return heaviest, max(counts.values(), default=0)

    def top_gram_ceiling(self, n: int) -> float:
        """An upper bound of `top_gram_share`: an n-gram occurs no more often than any of its words."""
        heaviest, most = self._heaviest_word
        return self.per_character(n * heaviest + (n - 1) * most)

    @cached_property
    def top_4_gram_ceiling(self) -> float:
        """A lower upper bound for 4-grams: of text that occurs twice or more, at least half is a repetition."""
        repeated = sum(len(word) + 1 for start in self._repeated_grams for word in self.words[start : start + 4])
        return self.per_character(2 * repeated)

    def duplicate_gram_share(self, n: int) -> float:
        """Share of the characters in n-grams that occurred earlier in the text.

        Read from left to right as in datatrove: a repeated n-gram is counted and skipped, so no character counts
        twice.
        """
        words, seen, repeated, index = self.words, set(), 0, 0
        while index <= len(words) - n:
            gram = tuple(words[index : index + n])
            if gram in seen:
                repeated += sum(map(len, gram))
                index += n
            else:
                seen.add(gram)
                index += 1
        return self.per_character(repeated)

    @cached_property
    def _repeated_grams(self) -> list[int]:
        """Positions of repeated 4-grams, and perhaps of others: 4-grams with equal hashes count as equal."""
        grams = list(map(hash, self._grams(4)))
        if len(set(grams)) == len(grams):
            return []
        first = dict(zip(reversed(grams), range(len(grams) - 1, -1, -1)))
        return sorted(set(range(len(grams))).difference(first.values()))

    @cached_property
    def duplicate_gram_ceiling(self) -> float:
        """An upper bound of `duplicate_gram_share` for n >= 4: a longer repetition is made of repeated 4-grams."""
        covered = {start + offset for start in self._repeated_grams for offset in range(4)}
        return self.per_character(sum(len(self.words[index]) for index in covered))


def duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """Number of parts that repeat an earlier one, and their characters."""
    distinct = set(parts)
    if len(distinct) == len(parts):
        return 0, 0
    return len(parts) - len(distinct), sum(map(len, parts)) - sum(map(len, distinct))
