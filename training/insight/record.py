"""The record of a run's attention: written step by step beside the checkpoints, read by pages and plots.

A record is a folder, `insight` in the output of a run:

    probes.json                 sizes of the model, the probes (the sequences that are drawn) and the heads kept in full
    steps.jsonl                 a line for each captured step: losses, in-context-learning score, copying
    heads.jsonl                 a line for each step, layer, head and kind of probe: its measures
    maps/00000128.safetensors   what is drawn of a step: the attention of every head, queries, keys and values of some

A step counts once its line is in `steps.jsonl`, which is written last. Layers and heads count from 0.
"""

import json
import math
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from training.common.errors import UserError
from training.common.files import open_whole, write_whole
from training.common.json_files import fits, read_json
from training.common.metrics import MetricsLog, read_log

INSIGHT = "insight"  # the folder in the output of a run
PROBES, STEPS, HEADS, MAPS = "probes.json", "steps.jsonl", "heads.jsonl", "maps"
VERSION = 1
_PROBE = {"name": str, "kind": str, "token_ids": [int], "tokens": [str], "period": (int, type(None))}
_SIZES = ("sequence_length", "layers", "heads", "key_value_heads", "head_dim")
_SHAPE = dict.fromkeys(("version", *_SIZES), int)
_SHAPE |= {"scale": (int, float), "bytes_per_token": (int, float, type(None)), "vectors": [[int]], "probes": [_PROBE]}
_REMEDY = "delete the folder and capture again"


@dataclass(frozen=True)
class Probe:
    """A sequence whose attention is drawn.

    Attributes:
        name: unique in the record.
        kind: random blocks repeated, text of the validation split, or text that the recipe names.
        token_ids: (tokens,).
        tokens: their texts, (tokens,).
        period: tokens after which a repeated probe begins again; None for other kinds.
    """

    name: str
    kind: Literal["repeated", "held_out", "text"]
    token_ids: list[int]
    tokens: list[str]
    period: int | None = None


@dataclass(frozen=True)
class HeadScores:
    """The measures of a head at a step, means over all measured sequences of a kind; see `training.insight.measures`.

    Attributes:
        tokens: training tokens seen.
        probe: the kind of sequences.
        copying: of the weights, the same for both kinds.
    """

    step: int
    tokens: int
    layer: int
    head: int
    probe: Literal["repeated", "held_out"]
    previous_token: float
    duplicate_token: float
    induction: float
    first_token: float
    entropy: float
    distance: float
    copying: float


@dataclass(frozen=True)
class StepScores:
    """The measures of the whole model at a step.

    Attributes:
        tokens: training tokens seen.
        loss: of the held-out sequences, in nats per token.
        in_context_learning: loss late in a held-out sequence minus loss early in it, in nats.
        copying: share of the second halves of repeated sequences that the model predicts (greedy).
        repeat_loss: loss in those second halves, in nats per token.
        loss_by_position: of the held-out sequences, (sequence_length - 1,): item i is of the token at position i + 1.
    """

    step: int
    tokens: int
    loss: float
    in_context_learning: float
    copying: float
    repeat_loss: float
    loss_by_position: list[float]


@dataclass(frozen=True)
class Snapshot:
    """The maps of a step, for drawing; each list has an item for each probe.

    Attributes:
        attention: (layers, heads, tokens, tokens) uint8, query by key; `probability` converts it.
        query, key, value: (vectors, tokens, head_dim) float16, as attention uses them, so after the encoding of
            positions. Keys and values are those of the head's group.
    """

    step: int
    attention: list[np.ndarray]
    query: list[np.ndarray]
    key: list[np.ndarray]
    value: list[np.ndarray]


@dataclass(frozen=True)
class Vectors:
    """Queries, keys and values of some heads at one step, beside those that a record holds.

    Attributes:
        heads: (layer, head), in the order of the vectors in the snapshot.
        snapshot: with the attention of all heads.
    """

    heads: list[tuple[int, int]]
    snapshot: Snapshot


@dataclass(frozen=True)
class Layout:
    """The sizes of a model, and the sequences and heads that its record holds for each step.

    Attributes:
        sequence_length: tokens of the sequences that are measured; the probes may be shorter.
        bytes_per_token: of the held-out text; bits per byte are nats per token / bytes per token / ln 2. None without
            such text.
        scale: factor of the dot products of queries and keys.
        vectors: (layer, head) of which queries, keys and values are kept.
    """

    sequence_length: int
    bytes_per_token: float | None
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    scale: float
    vectors: list[tuple[int, int]]
    probes: list[Probe]


@dataclass(frozen=True)
class Record(Layout):
    """A record, opened: the layout and all figures; the maps of a step are read by `snapshot`."""

    folder: Path
    steps: list[StepScores]
    head_scores: list[HeadScores]

    @classmethod
    def open(cls, folder: str | Path) -> "Record":
        """Read a record, which may still be growing.

        Args:
            folder: `insight` in the output of a run.

        Raises:
            UserError: there is none, nothing is captured yet, or it is damaged.
        """
        folder = Path(folder)
        layout = _read_layout(folder)
        steps = _read_scores(folder / STEPS, StepScores)
        if not steps:
            raise UserError(f"{folder}: no step is captured yet; wait for the first line of {STEPS}")
        whole = {scores.step for scores in steps}
        heads = [scores for scores in _read_scores(folder / HEADS, HeadScores) if scores.step in whole]
        layers, numbers = range(layout.layers), range(layout.heads)
        if not all(scores.layer in layers and scores.head in numbers for scores in heads):
            raise UserError(f"{folder / HEADS} is damaged (a head that {PROBES} does not have); {_REMEDY}")
        return cls(**vars(layout), folder=folder, steps=steps, head_scores=heads)

    def snapshot(self, step: int) -> Snapshot:
        """The maps of a step. Raises UserError: they are missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        file = map_file(self.folder, step)
        if not file.is_file():
            captured = ", ".join(str(scores.step) for scores in self.steps)
            raise UserError(f"'step': {step} has no maps in {self.folder}; captured: {captured}")
        try:
            tensors = load_file(file)
            kinds = [
                [tensors[f"{kind}.{probe}"] for probe in range(len(self.probes))]
                for kind in ("attention", "query", "key", "value")
            ]
        except (KeyError, OSError, SafetensorError) as error:
            raise UserError(f"{file} is damaged ({error}); {_REMEDY}") from None
        for probe, *arrays in zip(self.probes, *kinds, strict=True):
            tokens = len(probe.token_ids)
            vectors = np.float16, (len(self.vectors), tokens, self.head_dim)
            expected = [(np.uint8, (self.layers, self.heads, tokens, tokens)), vectors, vectors, vectors]
            if [(array.dtype, array.shape) for array in arrays] != expected:
                raise UserError(f"{file} is damaged (its shapes do not match {PROBES}); {_REMEDY}")
        return Snapshot(step, *kinds)


class RecordWriter:
    """Writes a record. What it finds there is kept up to a step, if it has the same layout.

    Args:
        folder: of the record; made if need be.
        step: the step from which the run goes on. Later steps are dropped, since they come again.

    Attributes:
        empty: whether no step is kept.
        forgot: whether earlier steps were dropped because they have another layout.
    """

    def __init__(self, folder: Path, layout: Layout, step: int = 0):
        self.folder, self.layout = folder, layout
        content = json.dumps({"version": VERSION, **asdict(layout)}) + "\n"
        file = folder / PROBES
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        self.forgot = bool(step) and before not in ("", content)
        if self.forgot:
            step = 0
        (folder / MAPS).mkdir(parents=True, exist_ok=True)
        if before != content:
            write_whole(file, content, durable=True)
        self.steps, self.heads = (MetricsLog(folder / name, step) for name in (STEPS, HEADS))
        self.empty = not read_log(folder / STEPS)
        for maps in (folder / MAPS).iterdir():
            if not step or maps.name > map_file(folder, step).name:
                maps.unlink()

    def write(self, scores: StepScores, heads: list[HeadScores], snapshot: Snapshot) -> None:
        """Add a step. Its maps have reached the disk when this returns."""
        from safetensors.numpy import save

        tensors = {
            f"{kind}.{probe}": np.ascontiguousarray(tensor)
            for kind in ("attention", "query", "key", "value")
            for probe, tensor in enumerate(getattr(snapshot, kind))
        }
        with open_whole(map_file(self.folder, scores.step), durable=True) as stream:
            stream.write(save(tensors))
        self.heads.write(*map(asdict, heads))
        self.steps.write(asdict(scores))


def map_file(folder: Path, step: int) -> Path:
    """The file of a step's maps."""
    return folder / MAPS / f"{step:08d}.safetensors"


def copy_record(source: Path, target: Path) -> None:
    """Copy a record over another. Nothing happens without one."""
    if (source / PROBES).is_file():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def probability(attention: np.ndarray) -> np.ndarray:
    """Stored attention, uint8, as probabilities, float32. Exact to 1 / 255 where attention is high, finer below."""
    return (attention.astype(np.float32) / 255) ** 2


def as_stored(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities as they are stored: round(255 * sqrt(p)) as uint8, so that small ones keep some digits."""
    return np.rint(255 * np.sqrt(probabilities)).astype(np.uint8)


def _read_layout(folder: Path) -> Layout:
    file = folder / PROBES
    try:
        content: dict[str, Any] = read_json(file, _SHAPE)
        vectors = [(layer, head) for layer, head in content["vectors"]]
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no record of attention; set insight.enabled to true in the recipe of the run, or record its "
            "checkpoints with `scratch attention`"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); {_REMEDY}") from None
    if content["version"] != VERSION:
        raise UserError(f"{file} has version {content['version']}, not {VERSION}; {_REMEDY}")
    probes = [Probe(**{key: probe[key] for key in _PROBE}) for probe in content["probes"]]
    if any(len(probe.token_ids) != len(probe.tokens) for probe in probes) or not probes:
        raise UserError(f"{file} is damaged (its probes are not whole); {_REMEDY}")
    if not all(0 <= layer < content["layers"] and 0 <= head < content["heads"] for layer, head in vectors):
        raise UserError(f"{file} is damaged (a head in 'vectors' does not exist); {_REMEDY}")
    values = {field.name: content[field.name] for field in fields(Layout)}
    return Layout(**values | {"vectors": vectors, "probes": probes})


def _read_scores(file: Path, kind: type) -> list[Any]:
    """The lines of a log as dataclasses. A figure that was not finite is NaN."""
    shapes = {int: int, float: (int, float), list[float]: [(int, float)]}
    shape = {field.name + "?" * (field.type is float): shapes.get(field.type, str) for field in fields(kind)}
    records = read_log(file)
    if not fits(records, [shape]):
        raise UserError(f"{file} is damaged (a figure is missing or is not a number); {_REMEDY}")
    return [kind(**{field.name: record.get(field.name, math.nan) for field in fields(kind)}) for record in records]
