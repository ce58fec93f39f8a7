"""What drops a file of the Python corpus, by its name in the funnel."""

import hashlib

from training.corpus.rules.code import is_generated, is_table, parses
from training.corpus.rules.code import path_reason as path_reason

# The rules for code, by what they protect the model from. Sizes are in characters.
MIN_LENGTH = 200
MAX_LENGTH = 200_000

# A validation file is a copy when more than this share of its long lines stands in the training text.
MAX_REPEATED = 0.5
LONG_LINE = 25  # characters: long enough that two authors rarely write the same line


def code_reason(text: str) -> str | None:
    """Why a Python source is dropped by its content, cheapest rule first."""
    if len(text) < MIN_LENGTH:
        return "too short"
    if len(text) > MAX_LENGTH:
        return "too long"
    if is_generated(text):
        return "generated"
    if is_table(text):
        return "data table"
    return None if parses(text) else "does not parse"


def duplicate(text: str, seen: set[bytes]) -> str | None:
    """Whether the same text, white space aside, was `seen` before; remembers it if not."""
    key = hashlib.blake2b("".join(text.split()).encode(), digest_size=16).digest()
    if key in seen:
        return "duplicate"
    seen.add(key)
    return None


def long_lines(text: str) -> set[str]:
    """The distinct lines, indentation aside, that are long enough to tell who wrote them."""
    lines = (line.strip() for line in text.split("\n"))
    return {line for line in lines if len(line) >= LONG_LINE}


def repeats(text: str, known_lines: set[str]) -> bool:
    """Whether most long lines of a text are known from elsewhere."""
    lines = long_lines(text)
    return len(lines & known_lines) > MAX_REPEATED * len(lines)
