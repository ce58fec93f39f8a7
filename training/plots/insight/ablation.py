"""Map of an ablation, layers by heads: the loss that each head saves, and the copying that needs it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.insight.ablation import Ablation, Ablations
from training.insight.heads import head_name
from training.plots.style import FAINT, INK, caption, drawing, save, short_name

_MOST_NUMBERS = 16  # layers and heads, up to which a cell holds its number


def draw_ablations(ablations: Ablations, layers: int, heads: int, files: Sequence[Path], title: str) -> None:
    """Draw a cell for each head.

    Args:
        ablations: of every head by itself.
        files: images to write, such as a PNG and a PDF.
    """
    copying = {effect.heads[0]: -effect.copying.value for effect in ablations.effects}
    panels = [("Copying that is lost without the head", "share of repeated tokens predicted", copying, 0.05)]
    if ablations.loss:
        loss = {effect.heads[0]: effect.loss.value for effect in ablations.effects}
        panels.insert(0, ("Loss that rises without the head", "nats per token of held-out text", loss, 0.02))
    cell = min(0.75, max(0.18, 9 / max(layers, heads)))
    width, height = max(7.2 / len(panels), cell * heads + 1.6), max(2.2, cell * layers) + 1.3
    with drawing(axes_spines_left=False, axes_spines_bottom=False) as pyplot:
        figure, axes = pyplot.subplots(1, len(panels), figsize=(width * len(panels), height), squeeze=False)
        title = short_name(title, int(8 * width * len(panels)))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        for panel, (name, unit, values, least) in zip(axes[0], panels):
            grid = np.array([[values[layer, head] for head in range(heads)] for layer in range(layers)])
            _draw_panel(figure, panel, grid, max(least, float(np.abs(grid).max())), name, unit)
        caption(figure, _sentence(ablations))
        for file in files:
            save(figure, file)


def _draw_panel(figure: Any, axes: Any, grid: np.ndarray, limit: float, name: str, unit: str) -> None:
    """Draw changes, (layers, heads), in colours from minus to plus `limit`."""
    from matplotlib.ticker import MaxNLocator

    image = axes.imshow(grid, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=25)
    bar.outline.set_visible(False)
    bar.set_label(unit, fontsize=8.5)
    axes.set_title(name, fontsize=10, pad=6)
    axes.set(xlabel="head", ylabel="layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=16, min_n_ticks=1))
    axes.tick_params(length=0)
    if max(grid.shape) <= _MOST_NUMBERS:
        for (layer, head), value in np.ndenumerate(grid):
            colour = "white" if abs(value) > 0.65 * limit else FAINT if abs(value) < 0.005 else INK
            text = f"{round(value, 2) + 0.0:.2f}".replace("-", "−")
            axes.text(head, layer, text, ha="center", va="center", fontsize=8.5, color=colour)


def _sentence(ablations: Ablations) -> str:
    worst = ablations.ranked()[0]
    return (
        f"Look for the darkest orange: the model needs these heads most. Without head {head_name(worst.heads[0])}, "
        f"{_effect(worst)}. Near zero, the head does nothing on this text, or other heads do the same."
    )


def _effect(effect: Ablation) -> str:
    change, what, unit = effect.copying, "the share of repeated tokens that are predicted", ""
    if effect.loss:
        change, what, unit = effect.loss, "the loss", " nats per token"
    error = "" if change.stderr is None else f" ± {change.stderr:.2f}"
    return f"{what} {'rises' if change.value > 0 else 'falls'} by {abs(change.value):.2f}{error}{unit}"
