"""Formation of induction heads: the tokens after which a published law expects them, and those a run needed."""

import math
from collections.abc import Sequence

from training.insight.record import HeadScores

FORMED = 0.3  # induction score from which a head counts as an induction head


def formation_tokens(batch: int, context: int) -> float:
    """Training tokens after which induction heads form, 10^5.7 * sqrt(batch * context), whatever the model's size.

    Aoyama et al., https://arxiv.org/abs/2511.16893. It was fitted on natural text; other text may need fewer or more.

    Args:
        batch: sequences per optimizer step.
        context: tokens per sequence.
    """
    return 10**5.7 * math.sqrt(batch * context)


def measured_formation(scores: Sequence[HeadScores]) -> int | None:
    """Training tokens at the first captured step where some head has half of the run's highest induction score.

    Args:
        scores: of repeated sequences, in the order of training.

    Returns:
        None if no head reaches `FORMED`.
    """
    repeated = [head for head in scores if head.probe == "repeated"]
    highest = max((head.induction for head in repeated), default=0.0)
    if not highest >= FORMED:
        return None
    return next(head.tokens for head in repeated if head.induction >= highest / 2)
