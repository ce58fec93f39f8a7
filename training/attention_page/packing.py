"""A record packed for a page: figures as JSON, maps and vectors as compressed bytes in base64.

The blocks, which static/data.js unpacks, are zlib streams of arrays in C order:

    scores    uint16 (measures, kinds, steps, layers, heads): 0 is the lowest value of a measure, 65534 its highest, and
              65535 stands where there is none
    maps      uint8 (heads, steps, cells) of each probe in turn: lower triangles, row by row; from the second step on
              the difference from the step before, modulo 256
    vectors   int8 (tokens, head_dim) of each of `vector_moments` (step and head), each probe, and of queries, keys and
              values: divided by their scale
    scales    float32 (tokens,) in the same order
"""

import base64
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.attention_page.selection import (
    BASE64,
    KINDS,
    MAP_SHARE,
    Selection,
    cells,
    compression,
    probe_lengths,
    select,
    vector_bytes,
)
from training.insight.heads import Head
from training.insight.measures import MEASURES
from training.insight.record import Record, Snapshot, Vectors

_ABSENT = 65535
_ATTEMPTS, _FULL, _AIM = 5, 0.92, 0.96  # selections are tried until `_FULL` of the room is used; each aims at `_AIM`
_MODEL_FIGURES = ("loss", "in_context_learning", "copying", "repeat_loss")


@dataclass(frozen=True)
class Packed:
    """A record as a page holds it.

    Attributes:
        blocks: text of each block by name; besides those of the module's docstring `figures`, which is JSON.
        left_out: a sentence for each kind of thing that is not in them.
    """

    blocks: dict[str, str]
    left_out: list[str]


def pack(record: Record, room: int, last: Vectors | None = None) -> Packed:
    """A record in at most `room` bytes, unless a single map is larger.

    Args:
        last: queries, keys and values that are shown beside those of the record, as far as there is room.
    """
    ratio, fixed = compression(record), 0  # an estimate, corrected by what comes of it
    best, smallest, before = None, math.inf, None
    for _ in range(_ATTEMPTS):
        selection = select(record, int(_AIM * (room - fixed)), ratio)
        if selection == before:
            break
        size = BASE64 * vector_bytes(record, selection.tokens)
        heads = [head for head in last.heads if head in selection.heads] if last else []
        heads = heads[: max(0, int((1 - MAP_SHARE) * room / size))]
        blocks, before = _pack_blocks(record, selection, last, heads), selection
        fixed = len(blocks["figures"]) + len(blocks["scores"]) + int(size * len(heads))
        used, left_out = sum(map(len, blocks.values())), selection.left_out(record)
        if smallest > room or used <= room:
            best, smallest = Packed(blocks, left_out), used
        if used <= room and (not left_out or used > _FULL * room):
            break
        ratio = (used - fixed) / BASE64 / selection.raw_bytes(record)
    return best


def _pack_blocks(record: Record, selection: Selection, last: Vectors | None, heads: list[Head]) -> dict[str, str]:
    """All blocks; `heads` are those of `last` for which there is room."""
    scores, ranges = _pack_scores(record, selection)
    moments, vectors = _pack_vectors(record, selection, last, heads)
    figures = _figures(record, selection) | {"ranges": ranges, "vector_moments": moments}
    return {"figures": _json(figures), "scores": scores, "maps": _pack_maps(record, selection), **vectors}


def _figures(record: Record, selection: Selection) -> dict[str, Any]:
    """The sizes of the model, probes, steps and losses of a page, and what is not in it."""
    steps = [scores for scores in record.steps if scores.step in set(selection.score_steps)]
    return {
        "layers": record.layers,
        "heads": record.heads,
        "head_dim": record.head_dim,
        "key_value_heads": record.key_value_heads,
        "scale": record.scale,
        "measures": MEASURES,
        "kinds": KINDS,
        "steps": selection.score_steps,
        "tokens": [scores.tokens for scores in steps],
        "model": {name: [_finite(getattr(scores, name)) for scores in steps] for name in _MODEL_FIGURES},
        "map_steps": selection.steps,
        "map_heads": selection.heads,
        "probes": [
            {
                "name": probe.name,
                "kind": probe.kind,
                "period": probe.period,
                "tokens": probe.tokens[: selection.tokens],
                "length": len(probe.tokens),
            }
            for probe in record.probes
        ],
        "left_out": selection.left_out(record),
    }


def _pack_scores(record: Record, selection: Selection) -> tuple[str, dict[str, tuple[float, float]]]:
    """The block `scores`, and the lowest and highest value of each measure."""
    places = {step: place for place, step in enumerate(selection.score_steps)}
    shape = len(MEASURES), len(KINDS), len(places), record.layers, record.heads
    values = np.full(shape, np.nan)
    for scores in record.head_scores:
        if scores.step in places:
            place = KINDS.index(scores.probe), places[scores.step], scores.layer, scores.head
            values[:, *place] = [getattr(scores, name) for name in MEASURES]
    values[~np.isfinite(values)] = np.nan
    packed, ranges = np.full(shape, _ABSENT, np.uint16), {}
    for number, name in enumerate(MEASURES):
        known = ~np.isnan(values[number])
        low, high = (values[number][known].min(), values[number][known].max()) if known.any() else (0.0, 1.0)
        packed[number][known] = np.rint((values[number][known] - low) / ((high - low) or 1) * (_ABSENT - 1))
        ranges[name] = float(low), float(high)
    return _block(packed), ranges


def _pack_maps(record: Record, selection: Selection) -> str:
    layers, heads = zip(*selection.heads, strict=True)
    lengths = probe_lengths(record, selection.tokens)
    shape = len(selection.heads), len(selection.steps)
    maps = [np.empty((*shape, cells([length])), np.uint8) for length in lengths]
    for place, step in enumerate(selection.steps):
        for probe, attention in enumerate(record.snapshot(step).attention):
            maps[probe][:, place] = attention[layers, heads][:, *np.tril_indices(lengths[probe])]
    return _block(*(np.diff(triangles, axis=1, prepend=np.uint8(0)) for triangles in maps))


def _pack_vectors(
    record: Record, selection: Selection, last: Vectors | None, heads: list[Head]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The step and head of all vectors, those of `last` first; and the blocks `vectors` and `scales`."""
    moments, vectors, scales = [], [], []

    def add(snapshot: Snapshot, head: Head, place: int) -> None:
        moments.append({"step": snapshot.step, "head": head})
        for of_probe in zip(snapshot.query, snapshot.key, snapshot.value, strict=True):
            for tensor in of_probe:
                values = tensor[place][: selection.tokens].astype(np.float32)  # (tokens, head_dim)
                scale = np.abs(values).max(axis=1, keepdims=True) / 127
                vectors.append(np.rint(values / np.where(scale > 0, scale, 1)).astype(np.int8))
                scales.append(scale)

    for head in heads:
        add(last.snapshot, head, last.heads.index(head))
    for step in selection.vector_steps:
        snapshot = record.snapshot(step)
        for place in selection.vectors:
            add(snapshot, record.vectors[place], place)
    return moments, {"vectors": _block(*vectors), "scales": _block(*scales)}


def _block(*arrays: np.ndarray) -> str:
    raw = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")


def _json(figures: dict[str, Any]) -> str:
    """JSON that cannot end the element of a page around it, whatever the texts of tokens are."""
    return json.dumps(figures, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
