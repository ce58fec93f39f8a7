"""Loss curves: one run with its validations (`plot_losses`), and several runs in one plot (`plot_runs`)."""

import math
import textwrap
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from training.plots.style import COLOURS, INK, drawing, legend_below, save, series, short_count, short_name, short_names

NATS = "loss (nats per token; lower is better)"
# Labels of the vertical axis, with the direction that is better where there is one.
_LABELS = {
    "loss": NATS,
    "bits_per_byte": "bits per byte (lower is better)",
    "tokens_per_second": "tokens per second (higher is better)",
    "mfu": "MFU: fraction of the measured rate (higher is better)",
}
_MOST_POINTS = 2000  # of a curve; more are not visible, and take seconds to draw


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
    if not any(_points(records, x, y) for y in ("loss", "validation_loss")):
        return []
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(7, 4.2))
        draw_losses(axes, records, x)
        axes.set(xlabel=x, ylabel=label)
        axes.set_title(short_name(title, 60))
        legend_below(figure, *axes.get_legend_handles_labels())
        save(figure, file)
    return [file.name]


def draw_losses(axes: Any, records: list[dict[str, Any]], x: str) -> None:
    """Draw the training and validation loss of a run, with the last validation loss in figures."""
    train, validation = _points(records, x, "loss"), _points(records, x, "validation_loss")
    if train:
        marker = "o" if len(train) < 10 else ""  # a line through one point is invisible
        style = {"color": COLOURS[0], "alpha": 0.75, "linewidth": 1, "marker": marker, "markersize": 3}
        axes.plot(*zip(*_thinned(train), strict=True), label="training", **style)
    if validation:
        style = {"color": COLOURS[5], "linewidth": 1.4, "marker": "s", "markersize": 3.5}
        axes.plot(*zip(*_thinned(validation), strict=True), label="validation", **style)
        bold = {"va": "center", "color": COLOURS[5], "fontweight": "bold", "annotation_clip": False}
        axes.annotate(f"{validation[-1][1]:.3f}", validation[-1], (7, 0), textcoords="offset points", **bold)
    if x == "tokens":
        axes.xaxis.set_major_formatter(short_count)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid()


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
        figure, axes = pyplot.subplots(figsize=(9, max(5, 1 + 0.21 * len(curves))))
        ends = []
        for number, (name, records) in enumerate(zip(short_names(curves), curves.values())):
            style = series(number) | {"markersize": 3.5}
            train, held_out = _points(records, x, y), _points(records, x, f"validation_{y}")
            train = smooth(train, max(1, len(train) // 50))
            if train:
                marker = {} if len(train) == 1 else {"marker": ""}
                axes.plot(*zip(*_thinned(train), strict=True), **style | marker, linewidth=0.8, alpha=0.6)
            if held_out:
                axes.plot(*zip(*_thinned(held_out), strict=True), **style, linewidth=1.6)
            last = (held_out or train)[-1][1]
            ends.append((last, f"{name}  {last:.4g}", pyplot.Line2D([], [], **style)))
        axes.set(
            xlabel={"tokens": "tokens seen", "seconds": "seconds of training"}.get(x, x),
            ylabel=_LABELS.get(y, y.replace("_", " ")),
        )
        values = sorted(line_y for line in axes.lines for line_y in line.get_ydata())
        if y in ("loss", "bits_per_byte") and len(values) >= 50:  # the early fall is steep: leave room for the ends
            highest = max(values[int(0.98 * (len(values) - 1))], *(last for last, *_ in ends))
            margin = 0.03 * (highest - values[0])
            axes.set_ylim(values[0] - margin, highest + margin)
        if x == "tokens":
            axes.xaxis.set_major_formatter(short_count)
        axes.grid()
        lines = [line for remark in remarks for line in textwrap.wrap(remark, 110)]
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9, color=INK)
        ends.sort(key=lambda end: -end[0])  # as the lines end, from top to bottom
        figure.legend(
            [handle for *_, handle in ends],
            [name for _, name, _ in ends],
            loc="outside right upper",
            title="run, last value",
            alignment="left",
        )
        save(figure, file)


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


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_MOST_POINTS` points, the lowest and the highest of each stretch, so that spikes stay visible."""
    if len(points) <= _MOST_POINTS:
        return points
    length = math.ceil(2 * len(points) / _MOST_POINTS)
    kept = []
    for start in range(0, len(points), length):
        stretch = points[start : start + length]
        ends = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept
