"""The quality and repetition rules of Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A1.1)."""

from functools import partial

from training.corpus.rules.rule import Rule, at_least, at_most
from training.corpus.rules.statistics import Statistics, duplicates

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "‣", "◦", "▪", "●", "* ", "-")
_ELLIPSES = ("...", "…")


@at_least(50)
def too_few_words(text: Statistics) -> float:
    """Words. Gopher."""
    return len(text.words)


@at_most(100_000)
def too_many_words(text: Statistics) -> float:
    """Words. Gopher."""
    return len(text.words)


@at_least(3)
def short_words(text: Statistics) -> float:
    """Mean characters per word. Gopher."""
    return text.per_word(text.visible_characters)


@at_most(10)
def long_words(text: Statistics) -> float:
    """Mean characters per word. Gopher."""
    return text.per_word(text.visible_characters)


@at_most(0.1)
def hash_symbols(text: Statistics) -> float:
    """Hash signs (#) per word. Gopher."""
    return text.per_word(text.text.count("#"))


@at_most(0.1)
def ellipses(text: Statistics) -> float:
    """Ellipses per word. Gopher."""
    return text.per_word(sum(map(text.text.count, _ELLIPSES)))


@at_most(0.9)
def bullet_lines(text: Statistics) -> float:
    """Share of the lines that begin with a bullet or a dash. Gopher."""
    return text.per_line(sum(line.startswith(_BULLETS) for line in text.lines))


@at_most(0.3)
def ellipsis_lines(text: Statistics) -> float:
    """Share of the lines that end with an ellipsis. Gopher."""
    return text.per_line(sum(line.endswith(_ELLIPSES) for line in text.lines))


@at_least(0.8)
def few_alphabetic_words(text: Statistics) -> float:
    """Share of the words that have a letter. Gopher."""
    return text.per_word(text.words_with_letter)


@at_least(2)
def few_stop_words(text: Statistics) -> float:
    """Number of the words the, be, to, of, and, that, have, with that occur. English only. Gopher."""
    return len(STOP_WORDS & text.word_counts.keys())


@at_most(0.3)
def duplicate_lines(text: Statistics) -> float:
    """Share of the lines that repeat an earlier line. Gopher, table A1."""
    return text.per_line(duplicates(text.lines)[0])


@at_most(0.2)
def duplicate_line_characters(text: Statistics) -> float:
    """Share of the characters in lines that repeat an earlier line. Gopher, table A1; FineWeb found 0.1 better."""
    return text.per_character(duplicates(text.lines)[1])


@at_most(0.3)
def duplicate_paragraphs(text: Statistics) -> float:
    """Share of the paragraphs that repeat an earlier one. Gopher, table A1."""
    return duplicates(text.paragraphs)[0] / max(len(text.paragraphs), 1)


@at_most(0.2)
def duplicate_paragraph_characters(text: Statistics) -> float:
    """Share of the characters in paragraphs that repeat an earlier one. Gopher, table A1."""
    return text.per_character(duplicates(text.paragraphs)[1])


def _top_gram_share(n: int, text: Statistics) -> float:
    """Share of the characters in the most frequent n-gram of words. Gopher, table A1."""
    return text.top_gram_share(n)


def _top_gram_ceiling(n: int, text: Statistics) -> float:
    return text.top_4_gram_ceiling if n == 4 else text.top_gram_ceiling(n)


def _duplicate_gram_share(n: int, text: Statistics) -> float:
    """Share of the characters in n-grams of words that occurred earlier. Gopher, table A1."""
    return text.duplicate_gram_share(n)


def _duplicate_gram_ceiling(text: Statistics) -> float:
    return text.duplicate_gram_ceiling


TOP_GRAMS = tuple(
    Rule(f"top_{n}_gram", partial(_top_gram_share, n), limit, "at most", partial(_top_gram_ceiling, n))
    for n, limit in ((2, 0.20), (3, 0.18), (4, 0.16))
)
DUPLICATE_GRAMS = tuple(
    Rule(f"duplicate_{n}_grams", partial(_duplicate_gram_share, n), limit, "at most", _duplicate_gram_ceiling)
    for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
)
QUALITY = (
    too_few_words,
    too_many_words,
    hash_symbols,
    ellipses,
    bullet_lines,
    ellipsis_lines,
    short_words,
    long_words,
    few_stop_words,
    few_alphabetic_words,
)
REPETITION = (
    duplicate_lines,
    duplicate_line_characters,
    duplicate_paragraphs,
    duplicate_paragraph_characters,
    *TOP_GRAMS,
    *DUPLICATE_GRAMS,
)
