"""The profanity rule: drops texts with words from the user's list."""

import re
from pathlib import Path

from training.common.errors import UserError
from training.corpus.rules.rule import Rejection
from training.corpus.rules.statistics import Statistics

_WORD = re.compile(r"\w+")


class Profanity:
    """Drops texts that hold a word or phrase of a list, as whole words, in any case (C4, section 2.2).

    Args:
        path: a UTF-8 file with one word or phrase a line.

    Raises:
        UserError: the file cannot be read, or names nothing.
    """

    name = "profanity"

    def __init__(self, path: Path):
        if path.exists() and not path.is_file():
            raise UserError(f"'profanity': {path} is not a file; give a text file with one word per line")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(f"'profanity': {path} cannot be read ({reason}); give a text file with one word per line")
        entries = {" ".join(_WORD.findall(line.lower())) for line in lines} - {""}
        if not entries:
            raise UserError(f"'profanity': {path} contains no words; give a text file with one word per line")
        self._words = frozenset(entry for entry in entries if " " not in entry)
        self._phrases = tuple(sorted(f" {entry} " for entry in entries if " " in entry))

    def __call__(self, text: Statistics) -> Rejection | None:
        words = _WORD.findall(text.lowered)
        found = self._words.intersection(words)
        if self._phrases:
            joined = f" {' '.join(words)} "
            found |= {phrase.strip() for phrase in self._phrases if phrase in joined}
        return Rejection(self.name, ", ".join(sorted(found)), "none of the list") if found else None
