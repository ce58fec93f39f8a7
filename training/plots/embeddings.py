"""Embeddings in pictures: the nearest neighbours of tokens through training, and the positions of a model."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from training.model_io.embeddings import Neighbours, Positions
from training.plots.style import COLOURS, FAINT, INK, caption, drawing, save, short_name

MOST_STEPS = 12  # columns of a token; a run with more checkpoints is thinned
_NAMES = {"learned": "learned", "sinusoidal": "sinusoidal", "rope": "RoPE"}
_NEIGHBOURS = "A column for each checkpoint, the closest token on top. The darker, the closer (cosine)."
_POSITIONS = (
    "Left: the vectors. Middle: their dot products; a dark red band along the diagonal means that near positions "
    "resemble each other. Right: the same by distance; a curve that falls steadily tells distances apart."
)


def draw_neighbours(found: Sequence[Neighbours], files: Sequence[Path], title: str) -> None:
    """Draw the nearest neighbours of each token at each step as a table with shaded cells.

    Args:
        found: sorted by token, then by step.
    """
    tables = [_thinned(list(of_token)) for _, of_token in groupby(found, key=lambda one: one.token)]
    columns = max(map(len, tables))
    heights = [1 + max(len(one.nearest) for one in table) for table in tables]
    size = (max(4.5, 1.2 + 1.1 * columns), 0.9 + 0.24 * sum(heights) + 0.15 * len(tables))
    with drawing(axes_spines_left=False, axes_spines_bottom=False) as pyplot:
        figure, grid = pyplot.subplots(len(tables), 1, figsize=size, height_ratios=heights, squeeze=False)
        for axes, table in zip(grid[:, 0], tables, strict=True):
            _draw_table(axes, table, columns)
        figure.suptitle(short_name(title, 50), x=0.01, ha="left", fontsize=11, fontweight="bold")
        caption(figure, _NEIGHBOURS)
        for file in files:
            save(figure, file)


def _thinned(table: list[Neighbours]) -> list[Neighbours]:
    """At most `MOST_STEPS` moments, the last among them."""
    every = -(-len(table) // MOST_STEPS)
    return table[::-1][::every][::-1]


def _draw_table(axes: Any, table: list[Neighbours], columns: int) -> None:
    """Draw one token: a column for each step, the closest neighbour on top."""
    import numpy as np

    rows = max(len(one.nearest) for one in table)
    cosines = np.full((rows, columns), np.nan)
    for column, one in enumerate(table):
        for row, (name, cosine) in enumerate(one.nearest):
            cosines[row, column] = cosine
            ink = "white" if cosine > 0.6 else INK
            axes.text(column, row, short_name(name, 11), ha="center", va="center", fontsize=8.5, color=ink)
    axes.imshow(cosines, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    labels = ["" if one.step is None else f"step {one.step:,}" for one in table]
    axes.hlines(np.arange(rows - 1) + 0.5, -0.5, columns - 0.5, color="white", linewidth=0.8)
    axes.set_xticks(range(len(table)), labels, fontsize=8)
    axes.set_yticks([(rows - 1) / 2], [short_name(table[0].token, 12)], fontsize=11, fontweight="bold")
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)


def draw_positions(found: Sequence[Positions], files: Sequence[Path], title: str) -> None:
    """Draw position vectors, their dot products, and these by distance: a line of three panels for each kind."""
    import numpy as np

    with drawing() as pyplot:
        size = (10.5, 0.9 + 2.9 * len(found))
        figure, grid = pyplot.subplots(len(found), 3, figsize=size, width_ratios=(1.25, 1, 1.15), squeeze=False)
        for (vectors, products, curve), positions in zip(grid, found, strict=True):
            most = np.abs(positions.vectors).max()
            shades = {"cmap": "RdBu_r", "interpolation": "nearest", "rasterized": True}
            vectors.imshow(positions.vectors, aspect="auto", vmin=-most, vmax=most, **shades)
            vectors.set(xlabel="coordinate", ylabel="position", title=_NAMES[positions.kind])
            image = products.imshow(positions.similarity, vmin=-1, vmax=1, **shades)
            products.set(xlabel="position", ylabel="position", title="dot products")
            figure.colorbar(image, ax=products, shrink=0.85).outline.set_visible(False)
            curve.axhline(0, color=FAINT, linewidth=0.8)
            curve.plot(positions.by_distance, color=COLOURS[0], linewidth=1.4)
            curve.set(xlabel="distance", ylabel="mean dot product", title="by distance")
            curve.grid()
            for axes in (vectors, products):
                axes.tick_params(length=2)
        figure.suptitle(short_name(title, 80), x=0.01, ha="left", fontsize=11, fontweight="bold")
        caption(figure, _POSITIONS)
        for file in files:
            save(figure, file)
