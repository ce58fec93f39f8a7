"""Votes as preferences: conversational prompt, chosen and rejected, which `scratch dpo` and `trl dpo` read."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from training.arena.results import Filter, read_verdicts
from training.arena.store import Battle, Message, Store, Winner
from training.tuning.dataset_formats import common_beginning


@dataclass(frozen=True)
class Preferences:
    """Preference records, and what was left out.

    Attributes:
        records: each with `prompt`, `chosen` and `rejected`, lists of messages.
        left_out: number of votes by reason.
    """

    records: list[dict[str, Any]]
    left_out: dict[str, int]


def collect_preferences(store: Store, chosen: Filter) -> Preferences:
    """The preferences in the votes that a filter takes.

    Votes without a better answer are left out and counted: ties, both bad, leaked battles, equal or empty answers, and
    machine votes that changed with the order. In a conversation of several turns the vote is on all answers together:
    `chosen` and `rejected` hold the messages from the first answer that differs.
    """
    records, left_out = [], Counter()
    for verdict in read_verdicts(store, chosen.kind):
        if not chosen.takes(verdict.battle):
            continue
        reason = why_not(verdict.battle, verdict.winner, verdict.consistent)
        if reason:
            left_out[reason] += 1
        else:
            records.append(as_preference(verdict.battle, verdict.winner))
    return Preferences(records, dict(left_out))


def why_not(battle: Battle, winner: Winner, consistent: bool | None) -> str | None:
    """The reason why a vote is not a preference; None if it is one."""
    first, second = battle.conversation_a, battle.conversation_b
    if battle.leaked:
        return "leaked"
    if consistent is False:
        return "changed with the order"
    if winner not in ("model_a", "model_b"):
        return winner.replace("_", " ")
    if not (_ends_with_answer(first) and _ends_with_answer(second)):
        return "without answers"
    if _plain(first) == _plain(second):
        return "equal answers"
    shared = common_beginning(_plain(first), _plain(second))
    same_prompt = shared and first[shared]["role"] == second[shared]["role"] == "assistant"
    return None if same_prompt else "different prompts"


def as_preference(battle: Battle, winner: Winner) -> dict[str, list[Message]]:
    """A vote for one of two answers as a record."""
    first, second = _plain(battle.conversation_a), _plain(battle.conversation_b)
    chosen, rejected = (first, second) if winner == "model_a" else (second, first)
    shared = common_beginning(first, second)
    return {"prompt": first[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _ends_with_answer(conversation: list[Message]) -> bool:
    return bool(conversation) and conversation[-1]["role"] == "assistant" and bool(conversation[-1]["content"].strip())


def _plain(conversation: list[Message]) -> list[Message]:
    return [{"role": message["role"], "content": message["content"]} for message in conversation]
