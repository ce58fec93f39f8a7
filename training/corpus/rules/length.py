"""Rules on the length in characters: cheap, so they are applied first."""

from training.corpus.rules.rule import at_least, at_most
from training.corpus.rules.statistics import Statistics


@at_least(1)
def empty(text: Statistics) -> float:
    """Characters, without leading and trailing whitespace."""
    return len(text.text.strip())


@at_least(200)
def too_few_characters(text: Statistics) -> float:
    """Characters."""
    return len(text.text)


@at_most(10_000_000)
def too_many_characters(text: Statistics) -> float:
    """Characters: three times War and Peace. It bounds the memory of the rules that count n-grams."""
    return len(text.text)


LENGTH = (too_many_characters, too_few_characters, empty)
