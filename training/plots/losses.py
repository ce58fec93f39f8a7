"""Loss curves: one run with its validations (`plot_losses`), and several runs in one plot (`plot_runs`)."""

import math
import textwrap
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from training.common.files import open_whole
from training.plots.style import COLOURS, INK, drawing, short_count

NATS = "loss (nats per token; lower is better)"
# Labels of the vertical axis, with the direction that is better where there is one.
_LABELS = {
    "loss": NATS,
    "bits_per_byte": "bits per byte (lower is better)",
    "tokens_per_second": "tokens per second (higher is better)",
    "mfu": "MFU: fraction of the measured rate (higher is better)",
}


def trainer_curves(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The losses in a Trainer's log history as records of a `metrics.jsonl`, training first."""
    validations = [
        {"step": record["step"], "validation_loss": record["eval_loss"]} for record in history if "eval_loss" in record
    ]
    return [record for record in history if "loss" in record] + validations


def plot_losses(
    records: list[dict[str, Any]], file: Path, title: str, x: str = "tokens", label: str = NATS
) -> list[str]:
    """Draw the training and validation loss of a run as a PNG, unless there is nothing to draw.

    Args:
        records: the records of a `metrics.jsonl`.
        x: the horizontal axis, `tokens` or `step`.
        label: of the vertical axis: the loss, and its unit.

    Returns:
        The name of the file, or nothing.
    """
    train, validation = _points(records, x, "loss"), _points(records, x, "validation_loss")
    if not train and not validation:
        return []
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        if train:
            marker = "o" if len(train) < 10 else ""  # a line through one point is invisible
            style = {"color": COLOURS[0], "alpha": 0.75, "linewidth": 1, "marker": marker, "markersize": 3}
            axes.plot(*zip(*train, strict=True), label="training", **style)
        if validation:
            axes.plot(*zip(*validation, strict=True), color=COLOURS[5], marker="o", markersize=3, label="validation")
            last, last_loss = validation[-1]
            axes.annotate(f"{last_loss:.3f}", (last, last_loss), xytext=(-4, 8), textcoords="offset points", ha="right")
        if x == "tokens":
            axes.xaxis.set_major_formatter(short_count)
        else:
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set(xlabel=x, ylabel=label, title=title)
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(file, dpi=120)
    return [file.name]


def plot_runs(
    curves: dict[str, list[dict[str, Any]]], file: Path, x: str, y: str, remarks: Sequence[str] = ()
) -> None:
    """Draw several runs in one plot: training smoothed, as thin lines; validations as lines with marks.

    Args:
        curves: the records of a `metrics.jsonl`, by name of the run.
        x: the horizontal axis, `tokens`, `step` or `seconds`.
        y: a key of the training records, whose validation counterpart is `validation_` and the same name.
        remarks: sentences above the plot.
    """
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
        ends = []
        for number, (name, records) in enumerate(curves.items()):
            colour = COLOURS[number % len(COLOURS)]
            train, held_out = _points(records, x, y), _points(records, x, f"validation_{y}")
            train = smooth(train, max(1, len(train) // 50))
            marker = "o" if len(train) == 1 else ""
            style = {"color": colour, "linewidth": 0.8, "alpha": 0.6, "marker": marker, "markersize": 3}
            axes.plot(*zip(*train, strict=True), **style)
            if held_out:
                axes.plot(*zip(*held_out, strict=True), color=colour, linewidth=1.6, marker="o", markersize=3)
            ends.append(((held_out or train)[-1], name, colour))
        axes.set(
            xlabel={"tokens": "tokens seen", "seconds": "seconds of training"}.get(x, x),
            ylabel=_LABELS.get(y, y.replace("_", " ")),
        )
        values = sorted(line_y for line in axes.lines for line_y in line.get_ydata())
        if y in ("loss", "bits_per_byte") and len(values) >= 50:  # the early fall is steep: leave room for the ends
            axes.set_ylim(values[0] - 0.03 * (values[-1] - values[0]), values[int(0.98 * (len(values) - 1))])
        if x == "tokens":
            axes.xaxis.set_major_formatter(short_count)
        axes.grid(alpha=0.3)
        lines = [line for remark in remarks for line in textwrap.wrap(remark, 110)]
        axes.set_title("\n".join(lines), fontsize=9, fontweight="normal", color=INK)
        _label_ends(axes, ends)
        with open_whole(file) as stream:
            figure.savefig(stream, format=file.suffix[1:], dpi=120)


def _points(records: list[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    """The finite values of `y` over `x`."""
    points = [(record[x], record[y]) for record in records if x in record and y in record]
    return [point for point in points if math.isfinite(point[1])]


def smooth(points: list[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Each point with the mean of the `window` values up to it. The first `window - 1` points are left out."""
    sums = [0.0, *accumulate(value for _, value in points)]
    return [
        (points[end - 1][0], (sums[end] - sums[end - window]) / window) for end in range(window, len(points) + 1)
    ]


def _label_ends(axes: Any, ends: list[tuple[tuple[float, float], str, str]], gap: float = 13) -> None:
    """Write the name and last value of each line at its end, at least `gap` points apart."""
    height = float("-inf")
    for point, name, colour in sorted(ends, key=lambda end: end[0][1]):
        own = axes.transData.transform(point)[1] * 72 / axes.figure.dpi
        height = max(own, height + gap)
        style = {"va": "center", "color": colour, "fontweight": "bold", "annotation_clip": False}
        short = name if len(name) <= 32 else f"{name[:15]}…{name[-16:]}"
        axes.annotate(f"{short}  {point[1]:.4g}", point, xytext=(8, height - own), textcoords="offset points", **style)
