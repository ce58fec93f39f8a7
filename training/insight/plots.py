"""Pictures of a run."""

from pathlib import Path
from typing import Any


def plot_losses(records: list[dict[str, Any]], file: Path, title: str, unit: str = "tokens") -> None:
    """Training and validation loss as a PNG.

    Args:
        records: the records of a `metrics.jsonl`.
        unit: `tokens` or `step`, the horizontal axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    train = [(record[unit], record["loss"]) for record in records if "loss" in record]
    validation = [(record[unit], record["validation_loss"]) for record in records if "validation_loss" in record]
    if train:
        axes.plot(*zip(*train, strict=True), color="tab:blue", alpha=0.6, linewidth=1, label="training")
    if validation:
        axes.plot(*zip(*validation, strict=True), color="tab:red", marker="o", markersize=3, label="validation")
        last, last_loss = validation[-1]
        axes.annotate(f"{last_loss:.3f}", (last, last_loss), xytext=(-4, 8), textcoords="offset points", ha="right")
    if unit == "tokens":
        axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M")
    axes.set(xlabel=unit, ylabel="loss (nats per token)", title=title)
    axes.grid(alpha=0.3)
    if train or validation:
        axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
