"""Pictures of results: the loss and the figures of a run, and the differences between models."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.common.files import open_whole
from training.eval.measures.figures import BITS, MetricKey
from training.eval.results.comparison import MeasureComparison
from training.eval.results.results_file import ModelResults
from training.eval.results.table import shares
from training.plots.losses import NATS
from training.plots.style import COLOURS, FAINT, INK, drawing, short_count

_POINTS = "Difference in points\n(right of 0 is better)"  # title of the panel for shares


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
    bits = {name: model.figures[split].value for name, model in models.items() if split in model.figures}
    above: list[tuple[float, Callable[[Any], None]]] = []  # relative width, drawing function
    if any("loss" in line or "validation_loss" in line for line in curve):
        above.append((2.2, lambda axes: _draw_curve(axes, curve)))
    if bits:
        above.append((1.0, lambda axes: _draw_bits(axes, bits)))
    below = [(1.0, lambda axes: _draw_shares(axes, models, keys))] if keys else []
    strips = [panels for panels in (above, below) if panels]
    if not strips:
        path.unlink(missing_ok=True)
        return False
    with drawing() as pyplot:
        figure = pyplot.figure(figsize=(10.5, 3.9 * len(strips)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        parts = figure.subfigures(len(strips), 1, squeeze=False)[:, 0]
        for part, panels in zip(parts, strips):
            axes = part.subplots(1, len(panels), width_ratios=[width for width, _ in panels], squeeze=False)[0]
            for place, (_, draw) in zip(axes, panels):
                draw(place)
        with open_whole(path) as stream:
            figure.savefig(stream, format="png", dpi=150, facecolor="white")
    return True


def _draw_curve(axes: Any, curve: list[dict[str, Any]]) -> None:
    """Draw loss over tokens seen. The scale is logarithmic, because the loss falls steeply at first."""
    train = [(line["tokens"], line["loss"]) for line in curve if "loss" in line]
    held_out = [(line["tokens"], line["validation_loss"]) for line in curve if "validation_loss" in line]
    if train:
        marker = "o" if len(train) < 10 else ""  # a line through one point is invisible
        style = {"color": COLOURS[0], "alpha": 0.75, "linewidth": 1.0, "marker": marker, "markersize": 3.5}
        axes.plot(*zip(*train), label="train", **style)
    if held_out:
        axes.plot(*zip(*held_out), color=COLOURS[5], marker="o", markersize=3.5, linewidth=1.4, label="validation")
        last = held_out[-1]
        style = {"va": "center", "color": COLOURS[5], "fontweight": "bold"}
        axes.annotate(f"{last[1]:.2f}", last, xytext=(7, 0), textcoords="offset points", **style)
    axes.set_title("Pretraining")
    axes.set_xlabel("tokens seen")
    axes.set_ylabel(NATS)
    axes.set_yscale("log")
    losses = [loss for _, loss in train + held_out]
    ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12) if min(losses) <= tick <= max(losses)]
    ticks = ticks or sorted({min(losses), max(losses)})  # of a short run
    axes.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(short_count)
    axes.set_xlim(0, 1.08 * max(line["tokens"] for line in curve))
    axes.grid(axis="y", color=FAINT, alpha=0.2)
    axes.legend(frameon=False)


def _draw_bits(axes: Any, bits: dict[str, float]) -> None:
    for place, (name, value) in enumerate(bits.items()):
        axes.bar(place, value, width=0.7, color=COLOURS[place % len(COLOURS)])
        axes.annotate(f"{value:.2f}", (place, value), xytext=(0, 3), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(bits)), bits)
    axes.set_title("Bits per byte (lower is better)")
    axes.margins(y=0.12)
    axes.tick_params(length=0)


def _draw_shares(axes: Any, models: Mapping[str, ModelResults], keys: list[MetricKey]) -> None:
    """Draw grouped bars in percent, one group per measure, with one standard error and a line at chance."""
    width = 0.8 / len(models)
    chances = {}
    for row, (name, model) in enumerate(models.items()):
        figures = shares(model)
        places = [group - 0.4 + (row + 0.5) * width for group, key in enumerate(keys) if key in figures]
        shown = [figures[key] for key in keys if key in figures]
        chances |= {key: figure.chance for key, figure in figures.items()}
        heights = [100 * figure.value for figure in shown]
        errors = [100 * (figure.stderr or 0) for figure in shown]
        axes.bar(places, heights, 0.92 * width, color=COLOURS[row % len(COLOURS)], label=name)
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
    label = "chance"
    for group, key in enumerate(keys):
        if chances.get(key) is not None:
            level = 100 * chances[key]
            axes.plot([group - 0.45, group + 0.45], [level, level], color=INK, linestyle=(0, (4, 2)), label=label)
            label = None  # once in the legend
    axes.set_xticks(range(len(keys)), [f"{key.title.replace('_', ' ')}\n{key.words}" for key in keys])
    axes.set_title("Share in percent, with standard error (higher is better)")
    axes.set_xlim(-0.55, len(keys) - 0.45)
    axes.set_ylim(0, 118)  # room for the legend above a bar at 100
    axes.set_yticks(range(0, 101, 20))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=FAINT, alpha=0.2)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=len(models) + 1, loc="upper left")


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
    rows = max(len(shown) for shown in panels.values())
    height = 2.0 + 0.3 * -(-len(pairs) // 4) + rows * max(0.3, 0.16 * (len(pairs) + 1))
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(6 * len(panels), height), squeeze=False, layout="constrained"
        )
        for place, (title, shown) in zip(axes[0], panels.items()):
            _draw_differences(place, shown, pairs, scale=100 if title == _POINTS else 1)
            place.set_title(title)
        handles = [
            pyplot.Line2D([], [], color=COLOURS[number % len(COLOURS)], marker="o", markersize=4, linewidth=1.4)
            for number in range(len(pairs))
        ]
        names = [" → ".join(pair) for pair in pairs]
        figure.legend(handles, names, loc="outside upper left", ncols=2 * len(panels), frameon=False)
        figure.savefig(path, dpi=150, facecolor="white")


def _panel_title(key: MetricKey, measure: MeasureComparison) -> str:
    if measure.unit == "share":
        return _POINTS
    if measure.unit == BITS:
        return f"Difference in {BITS}\n(left of 0 is better)"
    return f"Difference: {key.words}\n(right of 0 is better)"


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
            colour = COLOURS[number % len(COLOURS)]
            style = {"fmt": "o", "markersize": 4, "elinewidth": 1.4, "capsize": 2.5, "color": colour}
            axes.errorbar(
                scale * one.difference.value,
                row - 0.35 + (number + 0.5) * height,
                xerr=2 * scale * (one.difference.stderr or 0),
                markerfacecolor=colour if one.shown else "white",
                **style,
            )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(measures)), [key.label for key in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.grid(axis="x", color=FAINT, alpha=0.2)
    axes.set_xlabel("with two standard errors; filled: p < 0.05")
