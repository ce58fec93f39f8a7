"""Language identification, offline."""

from training.common.errors import UserError
from training.common.packages import how_to_install

# Enough to identify a language, and from two places, since pages may begin with menus in another one.
SAMPLE = 100  # characters


class LanguageIdentifier:
    """Naive Bayes over byte n-grams: py3langid, 139 languages (Lui and Baldwin 2012, https://aclanthology.org/P12-3005).

    Raises:
        UserError: py3langid is not installed.
    """

    def __init__(self):
        try:
            from py3langid.langid import MODEL_FILE
            from py3langid.langid import LanguageIdentifier as Identifier
        except ImportError:
            raise UserError(
                f"'languages' needs py3langid, which is not installed; {how_to_install('py3langid')}"
            ) from None
        self._identifier = Identifier.from_model_file(MODEL_FILE, norm_probs=True)

    @property
    def languages(self) -> list[str]:
        return self._identifier.labels

    def __call__(self, text: str) -> tuple[str, float]:
        """The most likely language of two samples of the text, as ISO 639-1, and its probability."""
        text = text.strip()
        if len(text) > 2 * SAMPLE:
            middle = len(text) // 2
            text = f"{text[:SAMPLE]} {text[middle : middle + SAMPLE]}"
        language, probability = self._identifier.classify(text)
        return language, float(probability)
