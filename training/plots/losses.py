"""Loss curves: one run with its validations (`plot_losses`), and several runs in one plot (`plot_runs`)."""

from pathlib import Path
from typing import Any

from training.plots.style import COLOURS, drawing


def plot_losses(records: list[dict[str, Any]], file: Path, title: str, unit: str = "tokens") -> None:
    """Draw the training and validation loss of a run as a PNG.

    Args:
        records: the records of a `metrics.jsonl`.
        unit: the horizontal axis, `tokens` or `step`.
    """
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        train = [(record[unit], record["loss"]) for record in records if "loss" in record]
        validation = [(record[unit], record["validation_loss"]) for record in records if "validation_loss" in record]
        if train:
            axes.plot(*zip(*train, strict=True), color="tab:blue", alpha=0.6, linewidth=1, label="training")
        if validation:
            axes.plot(*zip(*validation, strict=True), color="tab:red", marker="o", markersize=3, label="validation")
            last, last_loss = validation[-1]
            axes.annotate(f"{last_loss:.3f}", (last, last_loss), xytext=(-4, 8), textcoords="offset points", ha="right")
        if unit == "tokens":
            axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M")
        axes.set(xlabel=unit, ylabel="loss (nats per token)", title=title)
        axes.grid(alpha=0.3)
        if train or validation:
            axes.legend()
        figure.savefig(file, dpi=120)


def plot_runs(curves: dict[str, list[dict[str, Any]]], file: Path, x: str, y: str) -> None:
    """Draw several runs in one plot: training smoothed, as thin lines; validations as lines with marks.

    Args:
        curves: the records of a `metrics.jsonl`, by name of the run.
        x: the horizontal axis, `tokens`, `step` or `seconds`.
        y: a key of the training records, whose validation counterpart is `validation_` and the same name.
    """
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
        ends = []
        for number, (name, records) in enumerate(curves.items()):
            colour = COLOURS[number % len(COLOURS)]
            train, held_out = (
                [(record[x], record[key]) for record in records if x in record and key in record]
                for key in (y, f"validation_{y}")
            )
            train = smooth(train, max(1, len(train) // 50))
            axes.plot(*zip(*train, strict=True), color=colour, linewidth=0.8, alpha=0.6)
            if held_out:
                axes.plot(*zip(*held_out, strict=True), color=colour, linewidth=1.6, marker="o", markersize=3)
            ends.append(((held_out or train)[-1], name, colour))
        losses = y in ("loss", "bits_per_byte")
        axes.set(
            xlabel={"tokens": "tokens seen", "seconds": "seconds of training"}.get(x, x),
            ylabel={"loss": "loss (nats per token)", "bits_per_byte": "bits per byte"}.get(y, y.replace("_", " ")),
        )
        if losses:  # the early fall is steep: leave room for the end of the curves
            values = sorted(line_y for line in axes.lines for line_y in line.get_ydata())
            axes.set_ylim(values[0] - 0.03 * (values[-1] - values[0]), values[int(0.98 * (len(values) - 1))])
        if x == "tokens":
            axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M")
        axes.grid(alpha=0.3)
        _label_ends(axes, ends)
        figure.savefig(file, dpi=120)


def smooth(points: list[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Each point with the mean of the `window` values up to it. The first `window - 1` points are left out."""
    return [
        (points[end - 1][0], sum(value for _, value in points[end - window : end]) / window)
        for end in range(window, len(points) + 1)
    ]


def _label_ends(axes: Any, ends: list[tuple[tuple[float, float], str, str]], gap: float = 13) -> None:
    """Write the name and last value of each line at its end, at least `gap` points apart."""
    height = float("-inf")
    for point, name, colour in sorted(ends, key=lambda end: end[0][1]):
        own = axes.transData.transform(point)[1] * 72 / axes.figure.dpi
        height = max(own, height + gap)
        style = {"va": "center", "color": colour, "fontweight": "bold", "annotation_clip": False}
        axes.annotate(f"{name}  {point[1]:.4g}", point, xytext=(8, height - own), textcoords="offset points", **style)
