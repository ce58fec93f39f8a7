"""What can go wrong with the numbers of a run, noticed in the step where it happens and written down.

An incident is a line of `incidents.jsonl`: the step, what was seen, and the documents of its batch, so that the text
that did it can be looked at.
"""

import math
import statistics
from collections import deque

HISTORY = 64  # steps that tell what is usual
SPIKE = 8.0  # standard deviations, estimated robustly, above the median
MOST_SKIPPED = 10  # steps in a row; then it is not the batch that is at fault
CHANCE_MARGIN = 1.1  # of the loss of a uniform guess; initial weights at their usual size stay within it


class LossSpikes:
    """Whether a loss stands out from those before it.

    Median and median absolute deviation are not moved by the spikes themselves. A run that was resumed needs some
    steps before it can tell.
    """

    def __init__(self):
        self.losses: deque[float] = deque(maxlen=HISTORY)

    def see(self, loss: float) -> float | None:
        """The median of the steps before, in nats, if `loss` is a spike above it, else None."""
        usual = statistics.median(self.losses) if len(self.losses) >= HISTORY // 4 else math.inf
        spread = statistics.median(abs(other - usual) for other in self.losses) if self.losses else 0.0
        self.losses.append(loss)
        # 1.4826 turns the deviation of a normal distribution into its standard deviation. A tenth of the loss at
        # least, since a run that hardly moves any more has hardly any spread.
        return usual if loss > usual + max(SPIKE * 1.4826 * spread, 0.1 * usual) else None


def worse_than_chance(loss: float, vocab_size: int) -> str | None:
    """What to say of a validation loss before the first step, or None if it is what random weights should give."""
    chance = math.log(vocab_size)
    if loss <= CHANCE_MARGIN * chance:
        return None
    return (
        f"before the first step the validation loss is {loss:.2f}; guessing among {vocab_size:,} tokens gives "
        f"{chance:.2f}, so the initial weights (model.initializer_range) or the labels are wrong"
    )
