"""Which languages a text may be in (FineWeb and RefinedWeb keep what a model is sure to be English)."""

from training.common.errors import UserError
from training.corpus.rules.language_identifier import LanguageIdentifier
from training.corpus.rules.rule import Rejection
from training.corpus.rules.statistics import Statistics

# Where this share of all words is among these, a text is English, and the model, which costs as much as all other rules
# together, need not be asked. Other languages have a few words that look like some of these, and never so many.
_ENGLISH = frozenset("the and of to that with this for which from you have they are".split())
_ENGLISH_SHARE = 0.1
_ENGLISH_WORDS = 20  # fewer prove nothing


def is_clearly_english(text: Statistics) -> bool:
    """Whether a look at the commonest words is enough."""
    counts = text.word_counts
    return len(text.words) >= _ENGLISH_WORDS and text.per_word(sum(counts[word] for word in _ENGLISH)) >= _ENGLISH_SHARE


class LanguageRule:
    """Drops texts in other languages, or in none that is clear."""

    name = "language"

    def __init__(self, languages: list[str], min_probability: float):
        self._identify = LanguageIdentifier()
        self._languages = frozenset(languages)
        self._min_probability = min_probability
        unknown = sorted(self._languages.difference(self._identify.languages))
        if unknown:
            raise UserError(
                f"'languages' has '{unknown[0]}', which is not told apart; known: "
                f"{', '.join(sorted(self._identify.languages))}"
            )

    def __call__(self, text: Statistics) -> Rejection | None:
        if "en" in self._languages and is_clearly_english(text):
            return None
        language, probability = self._identify(text.text)
        if language in self._languages and probability >= self._min_probability:
            return None
        limit = f"{' or '.join(sorted(self._languages))} with at least {self._min_probability:g}"
        return Rejection(self.name, f"{language} with {probability:.2f}", limit)
