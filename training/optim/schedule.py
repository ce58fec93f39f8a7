"""Learning-rate schedules as pure functions of the step, so that resuming needs nothing but the step."""

import math


def learning_rate_factor(
    step: int, max_steps: int, kind: str, warmup_steps: int, decay_fraction: float, final_fraction: float
) -> float:
    """What to multiply every learning rate by at `step` (counted from 0).

    Args:
        kind: `wsd`, warm-up, stable, then a linear decay over the last `decay_fraction` of the run
            (https://arxiv.org/abs/2405.18392); or `cosine`, warm-up, then half a cosine wave to the end.
        final_fraction: what is left at the last step.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind == "cosine":
        progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))
    decay_steps = decay_fraction * max_steps
    remaining = min(1.0, (max_steps - step) / decay_steps) if decay_steps else 1.0
    return final_fraction + (1 - final_fraction) * remaining
