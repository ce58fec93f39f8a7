"""Confusion matrix: a plot of predicted against true labels."""

from pathlib import Path

from training.plots.style import drawing


def draw_confusion(file: Path, confusion: list[list[int]], labels: list[str], title: str) -> None:
    """Draw the counts, shaded by their share of each row.

    Args:
        confusion: rows are the true labels, columns the predicted ones.
    """
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    side = 2.2 + 0.7 * len(labels)
    with drawing(axes_spines_left=False, axes_spines_bottom=False) as pyplot:
        figure, axes = pyplot.subplots(figsize=(side + 0.8, side), layout="constrained")
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, counts in enumerate(confusion):
            for column, count in enumerate(counts):
                colour = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
        places = range(len(labels))
        axes.set_xticks(places, labels, rotation=45 if len(labels) > 4 else 0)
        axes.set_yticks(places, labels)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted", ylabel="true", title=title)
        figure.savefig(file, dpi=150)
