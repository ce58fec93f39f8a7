"""Attention maps with their tokens: the colours, scale and labels that all pictures of maps share."""

from collections.abc import Sequence
from typing import Any

from training.insight.record import Probe
from training.plots.style import FAINT

COLOUR_MAP = "Blues"
_MOST_LABELS = 40  # tokens, up to which each has its label
_UNSEEN = "#F1F1F1"  # keys after the query


def draw_map(axes: Any, probabilities: Any, tokens: Sequence[str], labels: bool = True) -> Any:
    """Draw the attention of a head, a row for each query and a column for each key; returns the image.

    Colour grows with the square root of attention, so that small shares are visible.

    Args:
        probabilities: (tokens, tokens) query by key.
    """
    import matplotlib
    from matplotlib.colors import PowerNorm

    colours = matplotlib.colormaps[COLOUR_MAP].with_extremes(bad=_UNSEEN)
    image = axes.imshow(hidden_future(probabilities), cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.6)
    axes.tick_params(length=0)
    count = len(tokens)
    if labels and count <= _MOST_LABELS:
        names, size = [visible(token) for token in tokens], 8 if count <= 16 else 190 / count
        axes.set_xticks(range(count), names, rotation=90, fontsize=size, family="monospace")
        axes.set_yticks(range(count), names, fontsize=size, family="monospace")
    else:
        axes.set(xticks=[], yticks=[])
    return image


def hidden_future(probabilities: Any) -> Any:
    """The map without the keys after each query, which causal attention never sees."""
    import numpy as np

    return np.ma.masked_array(probabilities, np.triu(np.ones_like(probabilities, dtype=bool), 1))


def add_scale(figure: Any, image: Any, axes: Any, **options: Any) -> None:
    """Draw the scale of a map: attention in percent."""
    bar = figure.colorbar(image, ax=axes, **options)
    bar.set_ticks([0, 0.05, 0.25, 0.5, 1], labels=["0", "5 %", "25 %", "50 %", "100 %"], fontsize=8.5)
    bar.set_label("attention of a query (row) to a key (column)", fontsize=8.5)
    bar.outline.set_visible(False)


def visible(token: str, limit: int = 12) -> str:
    """A token as a label: spaces, line ends and tabs visible, long ones cut."""
    token = token.translate({ord(" "): "·", ord("\n"): "↵", ord("\t"): "→", ord("\r"): "␍"})
    return token if len(token) <= limit else token[: limit - 1] + "…"


def describe_probe(probe: Probe) -> str:
    """The kind of a probe, as a title."""
    if probe.kind == "repeated":
        return f"{probe.period} random tokens, repeated"
    return "held-out text" if probe.kind == "held_out" else probe.name
