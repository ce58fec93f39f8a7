"""Length and Markdown of answers, as columns that the ratings can control for; length and topic of prompts."""

import re
from collections.abc import Sequence

import numpy as np

from training.arena.ratings import Floats
from training.arena.store import Battle, Message

COLUMNS = ("words", "headings", "list items", "bold")
TOPICS = ("code", "math", "other")

_CODE_BLOCK = re.compile(r"^```.*?(?:^```|\Z)", re.MULTILINE | re.DOTALL)
_MARKDOWN = (
    re.compile(r"^#{1,6} ", re.MULTILINE),
    re.compile(r"^[ \t]*(?:[-*+]|\d+[.)]) ", re.MULTILINE),
    re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
)
_CODE = re.compile(
    r"```|\b(?:python|javascript|java|rust|sql|html|css|bash|regex|function|code|compile|debug|api|json|algorithm)\b"
    r"|\bdef \w+\(|\bclass \w+[:(]|#include",
    re.IGNORECASE,
)
_MATH = re.compile(
    r"\b(?:calculate|compute|equation|integral|derivative|theorem|prove|probability|algebra|geometry|fraction|sum of)\b"
    r"|\d\s*[-+*/^×÷=]\s*\d|\$[^$\n]*[\\^_=][^$\n]*\$",
    re.IGNORECASE,
)


def count_style(conversation: Sequence[Message]) -> list[int]:
    """Words, headings, list items and bold passages in the answers; Markdown inside code blocks does not count."""
    text = "\n".join(message["content"] for message in conversation if message["role"] == "assistant")
    prose = _CODE_BLOCK.sub("", text)
    return [len(text.split()), *(len(pattern.findall(prose)) for pattern in _MARKDOWN)]


def style_differences(battles: Sequence[Battle]) -> Floats:
    """(battles, columns) differences of `count_style` between the two answers.

    Each is (a - b) / (a + b), then divided by its standard deviation, as in LMArena's style control (Li, Angelopoulos
    and Chiang, "Does style matter?", 2024), but not centred: the mean may be a preference for a side.
    """
    counts = np.array(
        [[count_style(battle.conversation_a), count_style(battle.conversation_b)] for battle in battles], dtype=float
    ).reshape(-1, 2, len(COLUMNS))
    first, second = counts[:, 0], counts[:, 1]
    shares = (first - second) / np.maximum(first + second, 1)
    spread = np.sqrt((shares**2).mean(axis=0)) if len(shares) else np.zeros(len(COLUMNS))
    return shares / np.where(spread > 0, spread, 1)


def first_prompt(battle: Battle) -> str:
    """The user's first message."""
    return next((message["content"] for message in battle.conversation_a if message["role"] == "user"), "")


def topic_of(prompt: str) -> str:
    """One of `TOPICS`, by words and signs in the prompt: a rough rule, code before mathematics."""
    if _CODE.search(prompt):
        return "code"
    return "math" if _MATH.search(prompt) else "other"
