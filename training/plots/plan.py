"""Plot of a plan: memory against context and batch, loss against budget, cost against time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.plots.style import FAINT, INK, drawing, legend_below, save, series, short_count, short_names

Curve = tuple[Sequence[float], Sequence[float]]  # values on the horizontal and on the vertical axis


@dataclass(frozen=True)
class PlanCurves:
    """Curves and marks of the three panels.

    Attributes:
        memory: by sequences at once: tokens per sequence, and GiB of a device.
        room: GiB that a device has.
        losses: by law: floating-point operations, and nats per token.
        budget, loss: of this plan.
        costs: by device: days of the run, and US dollars; a point for each number of devices.
        days, dollars: of this plan; dollars are None without a price.
    """

    memory: Mapping[str, Curve]
    room: float
    losses: Mapping[str, Curve]
    budget: float
    loss: float
    costs: Mapping[str, Curve]
    days: float
    dollars: float | None


def draw_plan(file: Path, curves: PlanCurves, title: str) -> None:
    """Draw the three panels into an image file."""
    with drawing() as pyplot:
        figure = pyplot.figure(figsize=(15, 4.8))
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=FAINT)
        left, middle, right = figure.subfigures(1, 3)
        _draw_memory(left, curves)
        _draw_loss(middle, curves)
        _draw_cost(right, curves)
        save(figure, file)


def _draw_memory(figure: Any, curves: PlanCurves) -> None:
    axes = figure.subplots()
    _draw_curves(axes, curves.memory)
    axes.axhline(curves.room, color=INK, linestyle="--", linewidth=1)
    axes.annotate("the device has", (0.02, curves.room), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    _label_ticks(axes.xaxis, lambda value, _: f"{value:,.0f}")
    _label_ticks(axes.yaxis, lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="x", rotation=30)
    axes.set(title="Peak memory of a device", xlabel="tokens per sequence", ylabel="GiB")
    legend_below(figure, *axes.get_legend_handles_labels())


def _draw_loss(figure: Any, curves: PlanCurves) -> None:
    axes = figure.subplots()
    _draw_curves(axes, curves.losses)
    axes.axvline(curves.budget, color=INK, linestyle="--", linewidth=1)
    axes.plot([curves.budget], [curves.loss], color=INK, marker="*", markersize=12, linestyle="none")
    axes.annotate(" this plan", (curves.budget, curves.loss), ha="left", va="bottom", fontsize=8)
    axes.set_xscale("log")
    _label_ticks(axes.xaxis, lambda value, _: f"{value:.0e}".replace("+", ""))
    axes.set(title="Loss by published laws", xlabel="floating-point operations", ylabel="nats per token")
    legend_below(figure, *axes.get_legend_handles_labels())


def _draw_cost(figure: Any, curves: PlanCurves) -> None:
    axes = figure.subplots()
    _draw_curves(axes, curves.costs)
    if curves.dollars is not None:
        axes.plot([curves.days], [curves.dollars], color=INK, marker="*", markersize=12, linestyle="none")
        axes.annotate(" this plan", (curves.days, curves.dollars), ha="left", va="bottom", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _label_ticks(axes.xaxis, lambda value, _: f"{value:g}")
    _label_ticks(axes.yaxis, short_count, minor=short_count)
    axes.set(title="Cost against time, 1 to 512 devices", xlabel="days", ylabel="US dollars")
    if curves.costs:
        legend_below(figure, *axes.get_legend_handles_labels())


def _label_ticks(axis: Any, label: Callable[..., str], minor: Callable[..., str] = lambda *_: "") -> None:
    """Label the ticks of a logarithmic axis; matplotlib's own labels need its mathematical text."""
    axis.set_major_formatter(label)
    axis.set_minor_formatter(minor)


def _draw_curves(axes: Any, curves: Mapping[str, Curve]) -> None:
    for place, (name, (across, up)) in enumerate(zip(short_names(curves), curves.values())):
        axes.plot(across, up, label=name, markersize=4, **series(place))
    axes.grid()
