"""Guards against bad numbers: non-finite losses, loss spikes, a start worse than chance.

What they find is an incident: a line of `incidents.jsonl` with the step, the numbers and the documents of its batch, so
that the text behind it can be inspected. Non-finite losses are found in `Pretrainer.check_step`.
"""

import math
import statistics
from collections import deque

# Steps that define the normal loss: enough for a median, few enough that a falling loss is nearly flat over them.
HISTORY = 64
# Standard deviations above the median. Normally distributed losses exceed 8 once in 10^15 steps, and even the
# heavier tails of real batches rarely do, while a diverging run does within a step or two. Chosen, not tuned.
SPIKE = 8.0
MOST_SKIPPED = 10  # non-finite steps in a row, after which the batches are not the cause
CHANCE_MARGIN = 1.1  # x the loss of a uniform guess; weights of the usual initial size stay below it


class LossSpikes:
    """Finds losses that stand out from those of the steps before.

    It compares with their median and median absolute deviation, which the spikes themselves do not move. A resumed run
    starts without a history, so it finds spikes only after some steps.
    """

    def __init__(self):
        self.losses: deque[float] = deque(maxlen=HISTORY)

    def record(self, loss: float) -> float | None:
        """Add a loss, in nats; return the median of those before if it is a spike above them, else None."""
        median = statistics.median(self.losses) if len(self.losses) >= HISTORY // 4 else math.inf
        deviation = statistics.median(abs(other - median) for other in self.losses) if self.losses else 0.0
        self.losses.append(loss)
        # x 1.4826 estimates a normal distribution's standard deviation. A jump below a tenth of the loss never counts,
        # because near convergence the deviation is close to 0.
        return median if loss > median + max(SPIKE * 1.4826 * deviation, 0.1 * median) else None


def check_initial_loss(loss: float, vocab_size: int) -> str | None:
    """A sentence about a validation loss that is worse than chance before the first step; None if it is normal."""
    chance = math.log(vocab_size)
    if loss <= CHANCE_MARGIN * chance:
        return None
    return (
        f"before the first step the validation loss is {loss:.2f}, but guessing among {vocab_size:,} tokens gives "
        f"{chance:.2f}; check model.initializer_range and the labels"
    )
