"""Curves of what a size costs: points, power laws with the range they hold over, tables and pictures."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.common.tables import as_markdown
from training.plots.style import caption, drawing, legend_below, save, series, short_count

TOLERANCE = 0.1  # share by which a point may miss the power law
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
Point = dict[str, float]  # a quantity by its key


@dataclass(frozen=True)
class Quantity:
    """Something measured at every point.

    Attributes:
        key: in a point.
        heading: in tables, with the unit.
        planned: key of the prediction of `scratch plan`, shown in a separate column.
        fitted: a power law is fitted and drawn. False for what hardly grows: it is in tables alone.
        added: the law is that of what further sizes add to the smallest one, for commands that take long to start.
    """

    key: str
    heading: str
    planned: str | None = None
    fitted: bool = True
    added: bool = False


@dataclass(frozen=True)
class Curve:
    """One thing that grows, and how one repetition of a point is measured.

    Attributes:
        group: of the page and its picture, such as `training`.
        panel: what grows; curves of one panel share a table and a plot.
        name: distinguishes the curves of a panel; empty if there is one.
        variable: heading of the sizes in tables.
        sizes, small: the sizes measured, ascending; those of `--small`.
        measure: takes a size and a folder for its files.
        rounds: repetitions of a point, of which the median counts.
    """

    group: str
    panel: str
    name: str
    variable: str
    sizes: tuple[int, ...]
    small: tuple[int, ...]
    measure: Callable[[int, Path], Point]
    quantities: tuple[Quantity, ...]
    rounds: int = 3

    @property
    def title(self) -> str:
        """Names the curve among all of them."""
        return f"{self.group}: {self.panel}" + (f", {self.name}" if self.name else "")


@dataclass(frozen=True)
class Law:
    """y = origin[1] + scale * (x - origin[0]) ** exponent.

    Attributes:
        origin: (0, 0), or the smallest point.
        first, last: sizes that it holds between.
        miss: share by which the worst of the points in between is off.
        below: exponent of the points up to `first`; None if there are none.
    """

    exponent: float
    scale: float
    first: float
    last: float
    miss: float
    below: float | None
    origin: tuple[float, float] = (0.0, 0.0)

    def __call__(self, sizes: np.ndarray) -> np.ndarray:
        return self.origin[1] + self.scale * (sizes - self.origin[0]) ** self.exponent


def fit_added(sizes: Sequence[float], values: Sequence[float]) -> Law | None:
    """Fit, as `fit` does, what further sizes add to the smallest one. None if that is nothing."""
    origin = sizes[0], values[0]
    across, up = np.array(sizes[1:]) - origin[0], np.array(values[1:]) - origin[1]
    law = fit(across, up) if (up > 0).all() else None
    return law and replace(law, first=law.first + origin[0], last=law.last + origin[0], origin=origin)


def fit(sizes: Sequence[float], values: Sequence[float]) -> Law | None:
    """Fit the power law, by least squares of the logarithms, that holds for the most points up to the largest one.

    It holds where no point is off by more than TOLERANCE; two points always have one. None for a single point.
    """
    if len(sizes) < 2:
        return None
    across, up = np.log(sizes), np.log(values)
    for start in range(len(sizes) - 1):
        exponent, constant = np.polyfit(across[start:], up[start:], 1)
        miss = float(np.abs(np.expm1(constant + exponent * across[start:] - up[start:])).max())
        if miss <= TOLERANCE:
            break
    below = float(np.polyfit(across[: start + 1], up[: start + 1], 1)[0]) if start else None
    return Law(float(exponent), math.exp(constant), sizes[start], sizes[-1], miss, below)


def exponent_text(exponent: float) -> str:
    """An exponent with two decimals."""
    return f"{round(exponent, 2) + 0.0:.2f}"  # never -0.00


def figure_text(value: float) -> str:
    """A figure with three digits."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"


def with_miss(predicted: float, measured: float) -> str:
    """A prediction, and by how much it is off."""
    return f"{figure_text(predicted)} ({round(100 * predicted / measured - 100):+d} %)"


def panel_table(curves: Sequence[Curve], points: dict[str, dict[str, Point]]) -> str:
    """The measured points of a panel, as Markdown."""
    several = len(curves) > 1
    quantities = curves[0].quantities
    header = [*([" "] if several else []), curves[0].variable]
    for quantity in quantities:
        header += [quantity.heading, *(["planned"] if quantity.planned else [])]
    rows = [header]
    for curve in curves:
        for size, point in points.get(curve.title, {}).items():
            row = [*([curve.name] if several else []), f"{point.get('shown', float(size)):,.0f}"]
            for quantity in quantities:
                row.append(figure_text(point[quantity.key]))
                row += [with_miss(point[quantity.planned], point[quantity.key])] if quantity.planned else []
            rows.append(row)
    return as_markdown(rows)


def curve_points(curve: Curve, points: dict[str, dict[str, Point]], key: str) -> tuple[list[float], list[float]]:
    """Sizes and values of a quantity."""
    found = points.get(curve.title, {})
    return [point.get("shown", float(size)) for size, point in found.items()], [point[key] for point in found.values()]


def law_of(curve: Curve, points: dict[str, dict[str, Point]], quantity: Quantity) -> Law | None:
    """The power law of a quantity."""
    return (fit_added if quantity.added else fit)(*curve_points(curve, points, quantity.key))


def law_table(curves: Sequence[Curve], points: dict[str, dict[str, Point]]) -> str:
    """The fitted exponents of a group, as Markdown."""
    rows = [["grows", "what is measured", "exponent", "holds from", "to", "within", "exponent below"]]
    for curve in curves:
        for quantity in curve.quantities:
            law = law_of(curve, points, quantity) if quantity.fitted else None
            if law:
                below = "" if law.below is None else exponent_text(law.below)
                name = curve.panel + (f", {curve.name}" if curve.name else "")
                ends = [short_count(float(f"{size:.2g}"), 0) for size in (law.first, law.last)]
                what = quantity.heading.rpartition(",")[0] + ", added" * quantity.added
                rows.append([name, what, exponent_text(law.exponent), *ends, f"{100 * law.miss:.0f} %", below])
    return as_markdown(rows)


def draw(file: Path, curves: Sequence[Curve], points: dict[str, dict[str, Point]], note: str) -> None:
    """Draw a group: a column for each panel, a row for each quantity, with the fitted laws and their exponents."""
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        if points.get(curve.title):
            panels.setdefault(curve.panel, []).append(curve)
    drawn = {panel: [each for each in members[0].quantities if each.fitted] for panel, members in panels.items()}
    rows = max(map(len, drawn.values()))
    with drawing(savefig_dpi=110, legend_fontsize=8) as pyplot:
        figure = pyplot.figure(figsize=(3.6 * len(panels), 3.3 * rows + 0.4))
        caption(figure, note)
        grid = figure.subfigures(rows, len(panels), squeeze=False)
        for column, (panel, members) in enumerate(panels.items()):
            for row, quantity in enumerate(drawn[panel]):
                axes = _draw_panel(grid[row, column], members, quantity, points)
                axes.set_title("" if row else panel, fontsize=10)
        save(figure, file)
    with Image.open(file) as image:
        few_colours = image.convert("RGB").quantize(64)
    few_colours.save(file, optimize=True)  # half the bytes


def _draw_panel(figure: Any, curves: Sequence[Curve], quantity: Quantity, points: dict[str, dict[str, Point]]) -> Any:
    axes = figure.subplots()
    for place, curve in enumerate(curves):
        sizes, values = curve_points(curve, points, quantity.key)
        law, style = law_of(curve, points, quantity), series(place)
        label = ", ".join(filter(None, (curve.name, law and f"exponent {exponent_text(law.exponent)}"))) or "measured"
        axes.plot(sizes, values, label=label, markersize=5, linestyle="none", **style)
        if law:
            across = np.geomspace(law.first, law.last)
            axes.plot(across, law(across), color=style["color"], linewidth=1.2)
        if quantity.planned:
            planned = curve_points(curve, points, quantity.planned)[1]
            axes.plot(
                sizes,
                planned,
                color=style["color"],
                linestyle=":",
                linewidth=1.2,
                label=f"{curve.name} planned".strip(),
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(short_count)
    low, high = axes.get_ylim()
    axes.yaxis.set_minor_formatter(short_count if high / low < 30 else lambda *_: "")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.tick_params(which="both", labelsize=8)
    axes.grid()
    axes.set_xlabel(curves[0].variable, fontsize=8.5)
    axes.set_ylabel(quantity.heading, fontsize=8.5)
    legend_below(figure, *axes.get_legend_handles_labels())
    return axes
