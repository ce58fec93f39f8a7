"""Heads by name, such as 1.3 for head 3 of layer 1, and the head to draw where the user names none."""

import math
from typing import Literal

from training.common.errors import UserError
from training.insight.formation import FORMED
from training.insight.record import HeadScores, Record

Head = tuple[int, int]  # layer and head, both from 0


def head_name(head: Head) -> str:
    """The name of a head, as commands and pictures write it."""
    return f"{head[0]}.{head[1]}"


def read_head(name: str, layers: int, heads: int, key: str) -> Head:
    """The head of a name.

    Args:
        key: the option that holds the name, for errors.

    Raises:
        UserError: not such a name, or a head that the model does not have.
    """
    layer, _, head = name.partition(".")
    if not (layer.isdecimal() and head.isdecimal()):
        raise UserError(f"'{key}': '{name}' is not a head; write layer.head, such as {head_name((layers - 1, 0))}")
    if int(layer) >= layers or int(head) >= heads:
        known = f"0.0 to {head_name((layers - 1, heads - 1))}"
        raise UserError(f"'{key}': the model has no head {name}; it has {layers} layers of {heads} heads, {known}")
    return int(layer), int(head)


def head_to_draw(record: Record) -> tuple[Head, Literal["induction", "previous_token"]]:
    """The head with the highest induction score at the end, and the measure that chose it.

    Without an induction head, it is the head with the highest previous-token score.
    """
    measure = "induction" if any(scores.induction >= FORMED for scores in _last_scores(record)) else "previous_token"
    return strongest_head(record, measure), measure


def strongest_head(record: Record, measure: str) -> Head:
    """The head with the highest score of a measure on repeated sequences at the end."""
    best = max(_last_scores(record), key=lambda scores: _finite(getattr(scores, measure)))
    return best.layer, best.head


def scores_of(record: Record, head: Head, probe: str) -> list[HeadScores]:
    """The measures of a head on a kind of sequences, in the order of training."""
    return [scores for scores in record.head_scores if (scores.layer, scores.head, scores.probe) == (*head, probe)]


def _last_scores(record: Record) -> list[HeadScores]:
    step = record.steps[-1].step
    return [scores for scores in record.head_scores if scores.step == step and scores.probe == "repeated"]


def _finite(score: float) -> float:
    return score if math.isfinite(score) else -math.inf
