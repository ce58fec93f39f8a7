"""Pictures of results: the loss and the figures of a run, and the differences between models."""

import math
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.eval.measures.figures import BITS, MetricKey
from training.eval.results.comparison import MeasureComparison
from training.eval.results.results_file import ModelResults
from training.eval.results.table import shares
from training.plots.losses import NATS, draw_losses
from training.plots.style import INK, bars, drawing, legend_below, save, series, short_name, short_names

_POINTS = "Difference in points (right of 0 is better)"  # title of the panel for shares
_MOST_GROUPS, _MOST_BARS = 8, 36  # of a strip of bars that can be read
_WIDTH = 10.5  # of the summary, in inches


def draw_summary(path: Path, curve: list[dict[str, Any]], models: Mapping[str, ModelResults]) -> bool:
    """Draw the pretraining curve, bits per byte of the validation split, and the shares of each model, as available.

    Args:
        path: the PNG to write.
        curve: lines of `pretrain/metrics.jsonl`: `tokens` with `loss` or with `validation_loss` (nats per token).
        models: results by name.

    Returns:
        Whether there was something to draw. If not, an old picture is deleted.
    """
    keys = list(dict.fromkeys(key for model in models.values() for key in shares(model)))
    split = MetricKey("data", "validation", BITS)
    labels = zip(short_names(models, 20), models.values())
    bits = {label: model.figures[split].value for label, model in labels if split in model.figures}
    bits = {name: value for name, value in bits.items() if value is not None and math.isfinite(value)}
    above: list[tuple[float, Callable[[Any], None]]] = []  # relative width, drawing function
    if any("loss" in line or "validation_loss" in line for line in curve):
        above.append((2.2, lambda axes: _draw_curve(axes, curve)))
    if bits:
        above.append((1.0, lambda axes: _draw_bits(axes, bits)))
    groups = max(1, min(_MOST_GROUPS, _MOST_BARS // max(1, len(models))))
    below = [keys[start : start + groups] for start in range(0, len(keys), groups)]
    legend = sum(len(name) + 8 for name in short_names(models)) / 100  # about its lines
    heights = [4.2] * bool(above) + [3.3 + 0.25 * legend] * len(below)
    if not heights:
        path.unlink(missing_ok=True)
        return False
    with drawing() as pyplot:
        figure = pyplot.figure(figsize=(_WIDTH, sum(heights)))
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        parts = list(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
        if above:
            widths = [width for width, _ in above]
            panels = parts.pop(0).subplots(1, len(above), width_ratios=widths, squeeze=False)[0]
            for axes, (_, draw) in zip(panels, above):
                draw(axes)
        for part, shown in zip(parts, below):
            _draw_shares(part.subplots(), models, shown, min(groups, len(keys)))
        save(figure, path)
    return True


def _draw_curve(axes: Any, curve: list[dict[str, Any]]) -> None:
    """Draw loss over tokens seen. The scale is logarithmic, because the loss falls steeply at first."""
    axes.set_title("Pretraining")
    draw_losses(axes, curve, "tokens")
    axes.set(xlabel="tokens seen", ylabel=NATS, yscale="log")
    losses = [loss for line in axes.lines for loss in line.get_ydata()]
    ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12) if min(losses) <= tick <= max(losses)]
    ticks = ticks or sorted({min(losses), max(losses)})  # of a short run
    axes.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0, 1.02 * max(line["tokens"] for line in curve))
    legend_below(axes.figure, *axes.get_legend_handles_labels())


def _draw_bits(axes: Any, bits: dict[str, float]) -> None:
    for place, value in enumerate(bits.values()):
        axes.bar(place, value, width=0.7, **bars(place))
        axes.annotate(f"{value:.2f}", (place, value), xytext=(0, 3), textcoords="offset points", ha="center")
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, bits)) > 24 else {}
    axes.set_xticks(range(len(bits)), list(bits), **turned)
    axes.set_xlim(min(-0.6, len(bits) / 2 - 2), max(len(bits) - 0.4, len(bits) / 2 + 1))
    axes.set_title("Bits per byte (lower is better)")
    axes.margins(y=0.12)
    axes.tick_params(axis="x", length=0)


def _draw_shares(axes: Any, models: Mapping[str, ModelResults], keys: list[MetricKey], groups: int) -> None:
    """Draw grouped bars in percent, one group per measure, with one standard error and a line at chance.

    Args:
        groups: that have room, so that all strips have bars of one width.
    """
    width = 0.8 / len(models)
    handles, chances = {}, {}
    for row, (name, model) in enumerate(zip(short_names(models), models.values())):
        figures = {key: figure for key, figure in shares(model).items() if math.isfinite(figure.value)}
        places = [group - 0.4 + (row + 0.5) * width for group, key in enumerate(keys) if key in figures]
        shown = [figures[key] for key in keys if key in figures]
        chances |= {key: figure.chance for key, figure in figures.items() if figure.chance is not None}
        heights = [100 * figure.value for figure in shown]
        errors = [100 * (figure.stderr or 0) for figure in shown]
        handles[name] = axes.bar(places, heights, 0.92 * width, **bars(row))
        axes.errorbar(places, heights, errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        for place, height, error in zip(places, heights, errors):
            axes.annotate(
                f"{height:.0f}",
                (place, height + error),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # over the line of chance
            )
    for group, key in enumerate(keys):
        if key in chances:
            level = 100 * chances[key]
            (handles["chance"],) = axes.plot(
                [group - 0.45, group + 0.45], [level, level], color=INK, linestyle=(0, (4, 2))
            )
    letters = max(12, int(100 / groups))  # per line of a name
    titles = [textwrap.fill(short_name(key.title.replace("_", " ")), letters) for key in keys]
    axes.set_xticks(range(len(keys)), [f"{title}\n{key.words}" for title, key in zip(titles, keys)])
    axes.set_title("Share in percent, with standard error (higher is better)")
    axes.set_xlim(-0.55, max(groups, 2) - 0.45)
    axes.set_ylim(0, 112)  # room for the number above a bar at 100
    axes.set_yticks(range(0, 101, 20))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    legend_below(axes.figure, list(handles.values()), list(handles))


def draw_comparison(
    path: Path, measures: Mapping[MetricKey, MeasureComparison], pairs: list[tuple[str, str]]
) -> None:
    """Draw the differences between models with two standard errors: one panel for shares, one per other metric.

    Args:
        path: the PNG to write.
        measures: as in `Comparison`.
        pairs: the pairs to draw, as (before, after).
    """
    titles = {key: _panel_title(key, measure) for key, measure in measures.items()}
    panels = {
        title: {key: measure for key, measure in measures.items() if titles[key] == title}
        for title in sorted(set(titles.values()), key=lambda title: (title != _POINTS, title))
    }
    heights = [0.9 + len(shown) * max(0.3, 0.1 * (len(pairs) + 1)) for shown in panels.values()]
    with drawing() as pyplot:
        figure = pyplot.figure(figsize=(9, sum(heights) + 0.3 + 0.12 * len(pairs)))
        every = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, shown) in zip(every, panels.items()):
            _draw_differences(axes, shown, pairs, scale=100 if title == _POINTS else 1)
            axes.set_title(title)
        every[-1].set_xlabel("with two standard errors; filled: p < 0.05")
        handles = [
            pyplot.Line2D([], [], **series(number), markersize=4, linewidth=1.4) for number in range(len(pairs))
        ]
        models = list(dict.fromkeys(name for pair in pairs for name in pair))
        shown = dict(zip(models, short_names(models)))
        legend_below(figure, handles, [f"{shown[before]} → {shown[after]}" for before, after in pairs])
        save(figure, path)


def _panel_title(key: MetricKey, measure: MeasureComparison) -> str:
    if measure.unit == "share":
        return _POINTS
    if measure.unit == BITS:
        return f"Difference in {BITS} (left of 0 is better)"
    return f"Difference: {short_name(key.words, 50)} (right of 0 is better)"


def _draw_differences(
    axes: Any, measures: Mapping[MetricKey, MeasureComparison], pairs: list[tuple[str, str]], scale: float
) -> None:
    """Draw a point with its error bar for each measure and pair, filled if the verdict is a difference."""
    height = 0.7 / len(pairs)
    for row, measure in enumerate(measures.values()):
        for one in measure.pairs:
            if (one.before, one.after) not in pairs:
                continue
            number = pairs.index((one.before, one.after))
            style = series(number)
            axes.errorbar(
                scale * one.difference.value,
                row - 0.35 + (number + 0.5) * height,
                xerr=2 * scale * (one.difference.stderr or 0),
                fmt=style["marker"],
                color=style["color"],
                markerfacecolor=style["color"] if one.shown else "white",
                markersize=4,
                elinewidth=1.4,
                capsize=2.5,
            )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(measures)), [short_name(key.label, 40) for key in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.grid(axis="x")
