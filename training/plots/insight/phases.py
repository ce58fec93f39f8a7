"""Four strips over training tokens: loss, in-context learning, induction of each head, loss by position.

The picture of a phase change of Olsson et al., 2022, https://arxiv.org/abs/2209.11895: where an induction head forms,
the loss falls faster for a while, and the model begins to profit from a longer context, all at the same tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.insight.formation import FORMED, measured_formation
from training.insight.heads import head_name, scores_of
from training.insight.record import Record
from training.plots.style import (
    COLOURS,
    FAINT,
    INK,
    caption,
    drawing,
    label_ends,
    rounded_count,
    save,
    short_count,
    short_name,
)

_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))  # lines of the heads with a colour and a name
_WORTH_A_NAME = 0.1  # induction score
_FARTHEST = 30.0  # times the tokens of the run, up to which the axis reaches to show where the law expects heads
_POSITIONS = 16  # rows of the map at most; the loss of neighbours is averaged


def draw_phases(record: Record, files: Sequence[Path], title: str, expected: float | None = None) -> None:
    """Draw the four strips.

    Args:
        record: with at least two captured steps.
        files: images to write, such as a PNG and a PDF.
        expected: training tokens after which induction heads are expected, see `formation_tokens`.
    """
    axis = _TokenAxis.of(record, expected)
    measured = measured_formation(record.head_scores)
    strips = {_draw_losses: 1.0, _draw_in_context_learning: 0.8, _draw_induction: 1.15, _draw_positions: 1.1}  # heights
    if not record.steps[-1].loss_by_position:  # no held-out text
        del strips[_draw_in_context_learning], strips[_draw_positions]
    with drawing() as pyplot:
        size = (8.4, 1.5 + 2 * sum(strips.values()))
        figure, panels = pyplot.subplots(len(strips), 1, figsize=size, sharex=True, height_ratios=list(strips.values()))
        figure.get_layout_engine().set(h_pad=0.06, hspace=0.03)
        figure.suptitle(short_name(title, 80), x=0.01, ha="left", fontsize=12, fontweight="bold")
        for panel, draw in zip(panels, strips):
            draw(panel, record, axis)
            _draw_formation(panel, axis, expected, measured, labelled=draw is _draw_losses)
        axis.apply(panels[-1])
        caption(figure, _sentence(record, expected, measured))
        for file in files:
            save(figure, file)


@dataclass(frozen=True)
class _TokenAxis:
    """The common axis: training tokens on a logarithmic scale, with the start of the run half as far as the next step.

    Attributes:
        places: (steps,) where each captured step is drawn.
        right: end of the axis.
        starts: whether the first step is that of no tokens.
    """

    places: list[float]
    right: float
    starts: bool

    @classmethod
    def of(cls, record: Record, expected: float | None) -> "_TokenAxis":
        tokens = [float(scores.tokens) for scores in record.steps]
        last = tokens[-1]
        starts = tokens[0] == 0
        places = [tokens[1] / 2 if starts else tokens[0], *tokens[1:]]
        reaches = expected is not None and last < expected <= _FARTHEST * last
        return cls(places, 1.25 * expected if reaches else last, starts)

    def edges(self) -> list[float]:
        """Borders between the steps, (steps + 1,)."""
        inner = [math.sqrt(before * after) for before, after in zip(self.places, self.places[1:])]
        return [self.places[0] ** 2 / inner[0], *inner, self.places[-1] ** 2 / inner[-1]]

    def apply(self, axes: Any) -> None:
        """Set scale, limits and labels of the lowest strip, which all share."""
        from matplotlib.ticker import LogLocator, NullFormatter

        edges = self.edges()
        right = max(edges[-1], self.right)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], right)
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if right > 1000 * edges[0] else (1, 2, 5), numticks=12))
        axes.xaxis.set_major_formatter(short_count)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("training tokens" + (" (far left: before training)" if self.starts else ""))


def _title(axes: Any, title: str, hint: str) -> None:
    axes.set_title(title, pad=6)
    axes.set_title(hint, loc="right", fontsize=8.5, fontweight="normal", color=INK, pad=6)


def _draw_losses(axes: Any, record: Record, axis: _TokenAxis) -> None:
    held_out = [scores.loss for scores in record.steps]
    repeated = [scores.repeat_loss for scores in record.steps]
    axes.plot(axis.places, repeated, color=COLOURS[5], linewidth=1.4, linestyle="--")
    labels = [(repeated[-1], "random tokens,\nrepeated", COLOURS[5])]
    if math.isfinite(held_out[-1]):
        axes.plot(axis.places, held_out, color=COLOURS[0], linewidth=1.8)
        labels.append((held_out[-1], "held-out text", COLOURS[0]))
    label_ends(axes, labels, apart=0.2)
    axes.set_ylabel("nats per token")
    axes.grid()
    _title(axes, "Loss", "look for a stretch that falls faster")


def _draw_in_context_learning(axes: Any, record: Record, axis: _TokenAxis) -> None:
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.plot(axis.places, [scores.in_context_learning for scores in record.steps], color=COLOURS[2], linewidth=1.8)
    axes.set_ylabel("nats")
    axes.grid()
    _title(axes, "In-context learning", "late minus early loss; below 0, a longer context helps")


def _draw_induction(axes: Any, record: Record, axis: _TokenAxis) -> None:
    """Draw a line for each head; those with the highest scores in colour, named at their ends."""
    heads = [(layer, head) for layer in range(record.layers) for head in range(record.heads)]
    curves = {head: [scores.induction for scores in scores_of(record, head, "repeated")] for head in heads}
    ranked = sorted(heads, key=lambda head: -max(filter(math.isfinite, curves[head]), default=0.0))
    named = [head for head in ranked[: len(_STYLES)] if head == ranked[0] or max(curves[head]) >= _WORTH_A_NAME]
    for head in ranked[len(named) :]:
        axes.plot(axis.places, curves[head], color=FAINT, alpha=0.5, linewidth=0.8)
    axes.set_ylim(-0.03, 1.03)
    labels = []
    for head, colour, style in zip(named, COLOURS, _STYLES):
        axes.plot(axis.places, curves[head], color=colour, linestyle=style, linewidth=1.8)
        labels.append((curves[head][-1], f"head {head_name(head)}: {curves[head][-1]:.2f}", colour))
    label_ends(axes, labels)
    axes.set_ylabel("share of attention")
    axes.grid()
    _title(axes, "Induction", "one line a head; near 1, it continues repeated text")


def _draw_positions(axes: Any, record: Record, axis: _TokenAxis) -> None:
    """Draw how the loss at each position differs from the mean of its step, with rows of positions on a log scale."""
    import numpy as np

    losses = np.array([scores.loss_by_position for scores in record.steps], float)  # (steps, positions)
    positions = losses.shape[1]
    edges = np.unique(np.rint(np.geomspace(1, positions + 1, min(_POSITIONS, positions) + 1)).astype(int))
    rows = np.stack([losses[:, low - 1 : high - 1].mean(1) for low, high in zip(edges, edges[1:])])  # (rows, steps)
    relative = rows - rows.mean(0)
    limit = float(np.nanquantile(np.abs(relative), 0.98)) or 1.0
    image = axes.pcolormesh(axis.edges(), edges, relative, cmap="PuOr_r", vmin=-limit, vmax=limit, rasterized=True)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(short_count)
    axes.set_ylabel("position in the sequence")
    bar = axes.figure.colorbar(image, ax=axes, location="bottom", aspect=50, pad=0.02, shrink=0.6)
    bar.outline.set_visible(False)
    bar.set_label("loss minus the mean of the rows (nats)", fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)
    _title(axes, "Loss by position", "purple at late positions: more context helps")


def _draw_formation(
    axes: Any, axis: _TokenAxis, expected: float | None, measured: int | None, labelled: bool
) -> None:
    """Draw a vertical line where induction heads formed, and one where the law expects them."""
    lines = [(measured, "formed here", "-"), (expected, "expected by the law", "--")]
    for height, (tokens, name, style) in zip((0.95, 0.8), lines):
        if tokens is None or not axis.edges()[0] < tokens <= axis.right:
            continue
        axes.axvline(tokens, color=INK, linestyle=style, linewidth=1.1, zorder=3)
        if labelled:
            side, shift = ("right", -4) if tokens == expected else ("left", 4)
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8.5, "va": "top"}
            axes.annotate(f"{name}: {rounded_count(tokens)}", (tokens, height), (shift, 0), ha=side, **place)


def _sentence(record: Record, expected: float | None, measured: int | None) -> str:
    last = record.steps[-1].tokens
    if measured is None:
        text = f"No head reaches an induction score of {FORMED} in the {rounded_count(last)} tokens of this run."
    else:
        text = (
            f"By {rounded_count(measured)} tokens, a head has half of the highest induction score of the run. Look "
            "there for a faster fall of the loss and for the start of in-context learning."
        )
    if expected is not None:
        text += (
            f" The published law, 10^5.7·√(batch·context), expects {rounded_count(expected)} tokens"
            + (f", {rounded_count(expected / last)} times as many as this run has." if expected > last else ".")
        )
    return text
