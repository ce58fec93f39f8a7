"""The language rule: keeps texts in given languages, as FineWeb and RefinedWeb keep English."""

from training.common.errors import UserError
from training.corpus.rules.language_identifier import LanguageIdentifier
from training.corpus.rules.rule import Rejection
from training.corpus.rules.statistics import Statistics

# A text with this share of its words among these is English, and the model, which costs as much as all other rules
# together, is not needed. Other languages have a few words that look like some of these, but never this many.
_ENGLISH = frozenset("the and of to that with this for which from you have they are".split())
_ENGLISH_SHARE = 0.1
_ENGLISH_WORDS = 20  # fewer are no evidence


def is_clearly_english(text: Statistics) -> bool:
    """Whether the most common words already show that the text is English."""
    counts = text.word_counts
    return len(text.words) >= _ENGLISH_WORDS and text.per_word(sum(counts[word] for word in _ENGLISH)) >= _ENGLISH_SHARE


class LanguageRule:
    """Drops texts in other languages, and texts whose language is not clear."""

    name = "language"

    def __init__(self, languages: list[str], min_probability: float):
        self._identify = LanguageIdentifier()
        self._languages = frozenset(languages)
        self._min_probability = min_probability
        unknown = sorted(self._languages.difference(self._identify.languages))
        if unknown:
            raise UserError(
                f"'languages': unknown language '{unknown[0]}'; known: {', '.join(sorted(self._identify.languages))}"
            )

    def __call__(self, text: Statistics) -> Rejection | None:
        if "en" in self._languages and is_clearly_english(text):
            return None
        language, probability = self._identify(text.text)
        if language in self._languages and probability >= self._min_probability:
            return None
        limit = f"{' or '.join(sorted(self._languages))} with at least {self._min_probability:g}"
        return Rejection(self.name, f"{language} with {probability:.2f}", limit)
