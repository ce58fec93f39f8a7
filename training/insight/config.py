"""The recipe keys under `insight`: what of a model's attention is recorded while it trains."""

import re
from dataclasses import dataclass

from training.stages.recipe import option


@dataclass
class InsightConfig:
    """The recorded part of a model's attention, and the steps at which it is recorded.

    Raises:
        ValueError: a head that is not written as LAYER.HEAD.
    """

    enabled: bool = option(False, "record attention and the measures of every head, in OUTPUT_DIR/insight")
    captures_per_doubling: int = option(
        3, "captures while the number of steps doubles; step 0 and the last step are captured too", at_least=1
    )
    tokens: int = option(64, "tokens of each sequence whose attention is drawn", at_least=8)
    heads: list[str] = option(
        list, 'heads whose queries, keys and values are kept, such as ["0.1"] (default: one in the middle layer)'
    )
    texts: list[str] = option(list, "texts whose attention is drawn as well")

    def steps(self, max_steps: int) -> list[int]:
        """The captured steps of a run, sorted: 0, the last, and between them as many in each doubling.

        Apart from the last step they do not depend on `max_steps`: a run that is continued has the steps of one that
        was as long from the start.
        """
        places = range(self.captures_per_doubling * max_steps.bit_length())
        grid = {round(2 ** (place / self.captures_per_doubling)) for place in places}
        return sorted({0, max_steps} | {step for step in grid if step < max_steps})

    def vectors(self, layers: int) -> list[tuple[int, int]]:
        """The heads whose queries, keys and values are kept, as (layer, head), for a model of so many layers."""
        if not self.heads:
            return [(layers // 2, 0)]
        return [tuple(int(number) for number in head.split(".")) for head in self.heads]

    def __post_init__(self):
        for head in self.heads:
            if not re.fullmatch(r"\d+\.\d+", head):
                raise ValueError(f"'insight.heads': {head!r} is not a head; write LAYER.HEAD, both from 0, such as 1.3")
