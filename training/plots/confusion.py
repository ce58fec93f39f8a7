"""Confusion plot of a classifier: the whole matrix with counts, or for many labels its largest entries and scores."""

from pathlib import Path
from typing import Any

from training.plots.style import COLOURS, FAINT, drawing, save, short_names

MOST_LABELS = 20  # of a matrix with readable counts
_SHOWN = 20  # confusions and labels in the plot of many labels
_SMALL = {"fontsize": 8.5, "va": "center"}


def draw_confusion(file: Path, confusion: list[list[int]], labels: list[str]) -> None:
    """Draw the counts of predicted labels.

    Up to `MOST_LABELS` labels: a matrix of counts, shaded by their share of each row. More labels: the matrix without
    numbers, the labels with the lowest F1, and the most frequent confusions.

    Args:
        file: PNG to write.
        confusion: rows are the true labels, columns the predicted ones.
    """
    import numpy as np

    counts = np.asarray(confusion)
    title = f"Accuracy {np.trace(counts) / max(1, counts.sum()):.1%} on {counts.sum():,} test texts"
    if len(labels) <= MOST_LABELS:
        _draw_few(file, counts, labels, title)
    else:
        _draw_many(file, counts, labels, title)


def _draw_few(file: Path, counts: Any, labels: list[str], title: str) -> None:
    shares = _shares(counts)
    names = short_names(labels)
    widest = max(map(len, names))
    side = 0.8 + 0.56 * max(4, len(labels))
    with drawing(axes_spines_left=False, axes_spines_bottom=False) as pyplot:
        figure, axes = pyplot.subplots(figsize=(max(5.5, side + 0.085 * widest), side + 0.065 * widest))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in _entries(counts):
            colour = "white" if shares[row, column] > 0.5 else FAINT if count == 0 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)
        places = range(len(labels))
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(labels) * widest > 40 else {}
        axes.set_xticks(places, names, **turned)
        axes.set_yticks(places, names)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted", ylabel="true")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        save(figure, file)


def _draw_many(file: Path, counts: Any, labels: list[str], title: str) -> None:
    with drawing() as pyplot:
        figure = pyplot.figure(figsize=(11, 10))
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        above, below = figure.subfigures(2, 1)
        matrix, scores = above.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_matrix(matrix, counts, title)
        _draw_lowest(scores, counts, labels)
        _draw_confusions(below.subplots(), counts, labels)
        save(figure, file)


def _draw_matrix(axes: Any, counts: Any, title: str) -> None:
    """Draw the matrix without numbers. The scale is a square root, so that rare confusions are visible."""
    from matplotlib.colors import PowerNorm

    image = axes.imshow(_shares(counts), cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true label's texts")
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "5 %", "20 %", "50 %", "100 %"])
    bar.outline.set_visible(False)
    axes.set(xticks=[], yticks=[], title=title)
    axes.set(xlabel="predicted label, A to Z", ylabel=f"true label, A to Z ({len(counts):,} labels)")


def _draw_lowest(axes: Any, counts: Any, labels: list[str]) -> None:
    """Draw the F1 of the labels where it is lowest, among those that have test texts."""
    import numpy as np

    right, texts = np.diag(counts), counts.sum(1)
    f1 = 2 * right / np.maximum(1, texts + counts.sum(0))
    order = [place for place in np.argsort(f1, kind="stable") if texts[place]]
    lowest = order[:_SHOWN]
    axes.barh(range(len(lowest)), f1[lowest], height=0.7, color=COLOURS[0])
    for row, place in enumerate(lowest):
        axes.annotate(f" {f1[place]:.2f} ({texts[place]:,} texts)", (f1[place], row), **_SMALL)
    names = short_names(labels)
    _name_rows(axes, [names[place] for place in lowest])
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel("F1 (higher is better)")
    axes.set_title(f"Lowest {len(lowest)} of {len(order):,} labels")


def _draw_confusions(axes: Any, counts: Any, labels: list[str]) -> None:
    """Draw the most frequent wrong predictions."""
    wrong = [(count, *place) for place, count in _entries(counts) if count and place[0] != place[1]]
    wrong.sort(key=lambda entry: (-entry[0], entry[1:]))
    largest, total = wrong[:_SHOWN], sum(count for count, *_ in wrong)
    axes.barh(range(len(largest)), [count for count, *_ in largest], height=0.7, color=COLOURS[5])
    for row, (count, true, _) in enumerate(largest):
        axes.annotate(f" {count:,} of {counts[true].sum():,}", (count, row), **_SMALL)
    names = short_names(labels)
    _name_rows(axes, [f"{names[true]} → {names[predicted]}" for _, true, predicted in largest])
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.margins(x=0.12)
    shown = sum(count for count, *_ in largest)
    axes.set_xlabel(f"texts of the true label (fewer is better); {shown:,} of {total:,} errors are shown")
    axes.set_title("Most frequent errors: true → predicted")


def _name_rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.set_ylim(max(4, len(names)) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _shares(counts: Any) -> Any:
    """Each count as a share of its row; zeros in a row without texts."""
    import numpy as np

    return counts / np.maximum(1, counts.sum(1, keepdims=True))


def _entries(counts: Any) -> Any:
    """Places and counts of a matrix as Python numbers."""
    import numpy as np

    return ((place, int(count)) for place, count in np.ndenumerate(counts))
