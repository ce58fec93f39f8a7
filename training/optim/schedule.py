"""Learning-rate schedules as pure functions of the step, so that a run can resume from its step alone."""

import math


def learning_rate_factor(
    step: int, max_steps: int, kind: str, warmup_steps: int, decay_fraction: float, final_fraction: float
) -> float:
    """The factor on every peak learning rate at `step`, counted from 0.

    Args:
        kind: `wsd`: warm-up, constant, then a linear decay over the last `decay_fraction` of the run
            (https://arxiv.org/abs/2405.18392). `cosine`: warm-up, then half a cosine period to the end.
        final_fraction: the factor at the last step.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind == "cosine":
        progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))
    decay_steps = decay_fraction * max_steps
    remaining = min(1.0, (max_steps - step) / decay_steps) if decay_steps else 1.0
    return final_fraction + (1 - final_fraction) * remaining
