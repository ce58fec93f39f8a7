"""Choice of what a page shows of a record: all of it if it fits, else fewer steps, shorter probes or fewer heads."""

import sys
import zlib
from dataclasses import dataclass, replace

import numpy as np

from training.insight.measures import MEASURES
from training.insight.record import Record

KINDS = ("repeated", "held_out")  # of the sequences that are measured
# A page first gets fewer steps, then shorter probes, then fewer heads; steps and tokens not below these.
FEWEST_STEPS, FEWEST_TOKENS = 12, 64
FEWEST_VECTOR_STEPS = 3
MOST_SCORES = 400_000  # measures of a head at a step
MAP_SHARE = 0.7  # of the room, if queries, keys and values are kept
_SAMPLED = 16  # heads whose maps are compressed to learn how small all become
BASE64 = 4 / 3


@dataclass(frozen=True)
class Selection:
    """The parts of a record that a page shows.

    Attributes:
        score_steps: steps with measures, ascending.
        steps: steps with maps, a part of `score_steps`.
        heads: (layer, head) with maps.
        tokens: length of the longest probe; longer ones end there.
        vector_steps: steps with queries, keys and values, a part of `steps`.
        vectors: places in `Record.vectors` of the heads with queries, keys and values; these have maps too.
    """

    score_steps: list[int]
    steps: list[int]
    heads: list[tuple[int, int]]
    tokens: int
    vector_steps: list[int]
    vectors: list[int]

    def raw_bytes(self, record: Record) -> int:
        """Bytes of the maps and vectors before compression."""
        lengths = probe_lengths(record, self.tokens)
        maps = len(self.steps) * len(self.heads) * cells(lengths)
        return maps + len(self.vector_steps) * len(self.vectors) * vector_bytes(record, self.tokens)

    def left_out(self, record: Record) -> list[str]:
        """A sentence for each kind of thing that is not in the page."""
        longest = max(len(probe.tokens) for probe in record.probes)
        heads = record.layers * record.heads
        found = []
        if len(self.score_steps) < len(record.steps):
            found.append(f"Measures of {len(self.score_steps)} of the {len(record.steps)} captured steps are shown.")
        if len(self.steps) < len(record.steps):
            found.append(f"Maps of {len(self.steps)} of the {len(record.steps)} captured steps are shown.")
        if self.tokens < longest:
            found.append(f"Probes end after {self.tokens} of up to {longest} tokens.")
        if len(self.heads) < heads:
            found.append(f"Maps of {len(self.heads)} of {heads} heads are shown: the strongest by each measure.")
        if len(self.vectors) < len(record.vectors):
            shown = len(self.vectors) or "none"
            found.append(f"Q, K and V of {shown} of the {len(record.vectors)} recorded heads are shown.")
        if self.vectors and len(self.vector_steps) < len(self.steps):
            found.append(f"Q, K and V are shown for {len(self.vector_steps)} of these steps.")
        return found


def select(record: Record, room: int, ratio: float) -> Selection:
    """The parts of a record that fit into a page.

    Args:
        room: bytes of base64.
        ratio: estimate of the compressed size of maps and vectors, as a share of the size before.
    """
    heads = ranked_heads(record)
    scores = len(heads) * len(MEASURES) * len(KINDS)
    steps = evenly([at.step for at in record.steps], max(2, MOST_SCORES // scores))
    raw = max(room, 0) / BASE64 / ratio  # bytes before compression
    limit = raw * (MAP_SHARE if record.vectors else 1)
    tokens = max(probe_lengths(record))

    def fitting(by: int) -> int:
        """The number of times that `by` maps of all probes fit, at least one."""
        return max(1, int(limit // (by * cells(probe_lengths(record, tokens)))))

    kept, count = len(heads), min(len(steps), max(fitting(len(heads)), FEWEST_STEPS))
    while fitting(kept) < count and tokens > FEWEST_TOKENS:
        tokens = max(FEWEST_TOKENS, tokens // 2)
    kept = min(kept, fitting(count))
    chosen = evenly(steps, fitting(kept))
    maps = Selection(steps, chosen, sorted(heads[:kept]), tokens, [], [])

    vectors = [record.vectors.index(head) for head in heads[:kept] if head in record.vectors]
    units = max(0, int((raw - maps.raw_bytes(record)) / vector_bytes(record, tokens)))  # heads at a step that fit
    vectors = vectors[: units // min(FEWEST_VECTOR_STEPS, len(chosen))]
    vector_steps = evenly(chosen, units // len(vectors)) if vectors else []
    return replace(maps, vectors=vectors, vector_steps=vector_steps)


def probe_lengths(record: Record, most: int = sys.maxsize) -> list[int]:
    """The number of tokens of each probe, at most so many."""
    return [min(len(probe.tokens), most) for probe in record.probes]


def cells(lengths: list[int]) -> int:
    """Cells of the lower triangles of maps of these lengths."""
    return sum(length * (length + 1) // 2 for length in lengths)


def vector_bytes(record: Record, tokens: int) -> int:
    """Bytes of the queries, keys and values of one head at one step, of all probes up to so many tokens."""
    return 3 * record.head_dim * sum(probe_lengths(record, tokens))


def ranked_heads(record: Record) -> list[tuple[int, int]]:
    """All heads, those of which vectors are kept first, then the highest by each measure in turn, at the last step."""
    last = [scores for scores in record.head_scores if scores.step == record.steps[-1].step]
    orders = [sorted(last, key=lambda scores: -np.nan_to_num(getattr(scores, name))) for name in MEASURES]
    by_turns = [(scores.layer, scores.head) for turn in zip(*orders, strict=True) for scores in turn]
    every = [(layer, head) for layer in range(record.layers) for head in range(record.heads)]
    return list(dict.fromkeys([*record.vectors, *by_turns, *every]))


def evenly(items: list[int], count: int) -> list[int]:
    """At most `count` items at even distances, the first and the last among them."""
    if count >= len(items):
        return items
    places = np.linspace(0, len(items) - 1, count) if count > 1 else [len(items) - 1]
    return [items[round(place)] for place in places]


def compression(record: Record) -> float:
    """Compressed size of maps as a share of their cells, measured on some maps of the last step."""
    snapshot = record.snapshot(record.steps[-1].step)
    heads = ranked_heads(record)
    raw = b"".join(
        attention[layer, head][np.tril_indices(attention.shape[-1])].tobytes()
        for attention in snapshot.attention
        for layer, head in heads[:: -(-len(heads) // _SAMPLED)]
    )
    return len(zlib.compress(raw)) / len(raw)
