"""Rules for web pages: C4 (Raffel et al., https://arxiv.org/abs/1910.10683, section 2.2) and FineWeb (Penedo et al.,
https://arxiv.org/abs/2406.17557, section 3.6). C4's rules for single lines are in `training.corpus.rules.cleaning`.
"""

import re

from training.corpus.rules.rule import at_least, at_most
from training.corpus.rules.statistics import Statistics

_SENTENCE_END = re.compile(r"[.!?]+[\"'”’»)\]]*+(?!\S)")
_TERMINAL = (".", "!", "?", "。", "！", "？", "．", "؟", "۔", "।", "։", "።")
_SHORT_LINE = 30  # characters


@at_least(5)
def few_sentences(text: Statistics) -> float:
    """Sentence ends. C4's published code; the paper's later text says 3."""
    return len(_SENTENCE_END.findall(text.text))


@at_most(0)
def lorem_ipsum(text: Statistics) -> float:
    """Occurrences of the placeholder text 'lorem ipsum'. C4."""
    return text.lowered.count("lorem ipsum")


@at_most(0)
def curly_brackets(text: Statistics) -> float:
    """Opening curly brackets, which occur in code and templates. C4."""
    return text.text.count("{")


@at_least(0.12)
def few_finished_lines(text: Statistics) -> float:
    """Share of the lines that end with a full stop, exclamation or question mark. FineWeb."""
    return text.per_line(sum(line.endswith(_TERMINAL) for line in text.lines))


@at_most(0.67)
def short_lines(text: Statistics) -> float:
    """Share of the lines of no more than 30 characters. FineWeb."""
    return text.per_line(sum(len(line) <= _SHORT_LINE for line in text.lines))


@at_most(0.3)
def newlines_per_word(text: Statistics) -> float:
    """Line ends per word; high in lists. FineWeb's published code."""
    return text.per_word(text.text.count("\n"))


C4 = (lorem_ipsum, curly_brackets, few_sentences)
FINEWEB = (few_finished_lines, short_lines, newlines_per_word)
