"""A small record of attention without a model: two layers of two heads that form an induction circuit in four steps."""

from pathlib import Path

import numpy as np

from training.insight.record import (
    HeadScores,
    Layout,
    Probe,
    Record,
    RecordWriter,
    Snapshot,
    StepScores,
    as_stored,
)

LAYERS, HEADS, TOKENS, HEAD_DIM, PERIOD = 2, 2, 24, 8, 12
CAPTURED = (0, 1, 8, 64)
VECTORS = [(0, 0), (1, 0)]
_WORDS = "def read ( path ) : return open lines for line in".split()


def write_record(folder: Path) -> Record:
    """Write the record into a folder, usually RUN/insight, and open it."""
    words = [" ".join(_WORDS[: place % 3 + 1][-1:]) for place in range(TOKENS)]
    repeated = Probe("repeated", "repeated", [*range(5, 17)] * 2, _WORDS * 2, PERIOD)
    held_out = Probe("held out 1", "held_out", [3, 4, 5] * 8, words)
    layout = Layout(TOKENS, 3.5, LAYERS, HEADS, 1, HEAD_DIM, HEAD_DIM**-0.5, VECTORS, [repeated, held_out])
    writer = RecordWriter(folder, layout)
    for place, step in enumerate(CAPTURED):
        writer.write(*_step(step, place / (len(CAPTURED) - 1)))
    return Record.open(folder)


def _step(step: int, formed: float) -> tuple[StepScores, list[HeadScores], Snapshot]:
    """What is written of a step; `formed` grows from 0 to 1."""
    tokens, draw = step * 1024, np.random.default_rng(step)
    maps = np.stack([_attention(formed * (head == 0), layer) for layer in range(LAYERS) for head in range(HEADS)])
    maps = maps.reshape(LAYERS, HEADS, TOKENS, TOKENS)
    vectors = [draw.normal(size=(len(VECTORS), TOKENS, HEAD_DIM)).astype(np.float16) for _ in range(6)]
    heads = [
        HeadScores(
            step=step,
            tokens=tokens,
            layer=layer,
            head=head,
            probe=probe,
            previous_token=float(np.diagonal(maps[layer, head], -1).mean()),
            duplicate_token=float(np.diagonal(maps[layer, head], -PERIOD).mean()),
            induction=float(np.diagonal(maps[layer, head], 1 - PERIOD).mean()),
            first_token=float(maps[layer, head, 1:, 0].mean()),
            entropy=1 - 0.8 * formed * (head == 0),
            distance=5 - 4 * formed * (layer == 0),
            copying=0.6 * formed * (layer == 1),
        )
        for layer in range(LAYERS)
        for head in range(HEADS)
        for probe in ("repeated", "held_out")
    ]
    losses = [5 - 3 * formed * place / TOKENS for place in range(1, TOKENS)]
    scores = StepScores(step, tokens, 5 - 2 * formed, -0.5 * formed, formed, 5 - 4.5 * formed, losses)
    return scores, heads, Snapshot(step, [as_stored(maps)] * 2, vectors[:2], vectors[2:4], vectors[4:])


def _attention(formed: float, layer: int) -> np.ndarray:
    """(tokens, tokens): between uniform and a previous-token head (layer 0) or an induction head (layer 1)."""
    uniform = np.tril(np.ones((TOKENS, TOKENS)))
    pattern = np.zeros((TOKENS, TOKENS))
    for query in range(TOKENS):
        looked_at = query - 1 if layer == 0 else query - PERIOD + 1
        pattern[query, max(looked_at, 0)] = 1
    return (1 - formed) * uniform / uniform.sum(1, keepdims=True) + formed * pattern
