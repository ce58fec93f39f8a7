"""Plots of an arena: ratings with their intervals, head-to-head scores, and ratings over the votes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.plots.style import FAINT, INK, drawing, save, series, short_names

MOST_CELLS = 16  # models, up to which the head-to-head scores are written into the map


def draw_leaderboard(
    file: Path,
    names: Sequence[str],
    ratings: Sequence[tuple[float, float, float]],
    win_rates: Sequence[Sequence[float | None]],
    battles: Sequence[Sequence[int]],
    history: Sequence[tuple[int, Sequence[float | None]]],
    title: str,
) -> None:
    """Draw three panels.

    Args:
        file: image to write.
        names: (models,) from the highest rating to the lowest.
        ratings: (models,) rating with the lower and the upper end of its interval.
        win_rates, battles: (models, models) score of the row's model against the column's, None without votes, and the
            number of votes.
        history: number of votes so far, and (models,) ratings, None before a model's first vote.
    """
    models, names = len(names), short_names(names, 24)
    side = max(3.4, (0.55 if models <= MOST_CELLS else 0.25) * models + 1.4)
    with drawing() as pyplot:
        figure, (left, middle, right) = pyplot.subplots(
            1, 3, figsize=(8 + 2 * side, side + 0.6 + 0.05 * max(map(len, names))), width_ratios=[1, 1.05, 1]
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=FAINT)
        _draw_ratings(left, names, ratings)
        _draw_scores(pyplot, middle, names, win_rates, battles)
        _draw_history(right, names, history)
        save(figure, file)


def _draw_ratings(axes: Any, names: Sequence[str], ratings: Sequence[tuple[float, float, float]]) -> None:
    for place, (rating, lower, upper) in enumerate(ratings):
        mark = series(place) | {"linestyle": "none", "markersize": 6}
        axes.errorbar(rating, place, xerr=[[rating - lower], [upper - rating]], capsize=3, **mark)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set(title="Rating with 95 % interval", xlabel="points (higher is better; the average model is 1000)")


def _draw_scores(
    pyplot: Any,
    axes: Any,
    names: Sequence[str],
    win_rates: Sequence[Sequence[float | None]],
    battles: Sequence[Sequence[int]],
) -> None:
    models = len(names)
    shown = [[math.nan if rate is None else rate for rate in rates] for rates in win_rates]
    axes.set_facecolor("0.93")  # pairs without votes
    image = axes.imshow(shown, cmap="PuOr", vmin=0, vmax=1)  # lightness differs from both ends to the middle
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="score, a tie is half a win")
    if models <= MOST_CELLS:
        for row in range(models):
            for column in range(models):
                rate = win_rates[row][column]
                if rate is not None:
                    colour = "white" if abs(rate - 0.5) > 0.27 else INK
                    text = f"{rate:.0%}\n{battles[row][column]:,}"
                    axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(models), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(models), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title="Score of the row against the column", xlabel="score and number of votes")


def _draw_history(axes: Any, names: Sequence[str], history: Sequence[tuple[int, Sequence[float | None]]]) -> None:
    for place, name in enumerate(names):
        points = [(votes, ratings[place]) for votes, ratings in history if ratings[place] is not None]
        if points:
            axes.plot(*zip(*points), label=name, markevery=max(1, len(points) // 8), markersize=4, **series(place))
    axes.grid()
    axes.set(title="Rating over time", xlabel="votes so far", ylabel="points")
    if history:
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
