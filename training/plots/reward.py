"""A plot of reward against KL: what reinforcement learning gained, and how far it moved from the start."""

import math
from pathlib import Path
from typing import Any

from training.plots.style import FAINT, drawing, save, short_name


def draw_reward(records: list[dict[str, Any]], file: Path, title: str) -> list[str]:
    """Draw reward against KL: a point per logged step, coloured by step, joined by a line.

    The axes are those of Gao, Schulman and Hilton, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760.
    Reward that rises while KL stays small is a gain; reward that needs much KL may be reward hacking. As in the paper,
    the scale of KL is its square root, so that one outlier does not squeeze the other points.

    Args:
        records: with `step`, `reward` and `kl` (nats per token); those that are not finite are left out.
        file: PNG to write.

    Returns:
        The name of the file, or nothing if no record is finite.
    """
    import numpy as np

    points = [[record.get(key, math.nan) for key in ("step", "kl", "reward")] for record in records]
    points = [point for point in points if all(map(math.isfinite, point))]
    if not points:
        return []
    steps, kl, reward = zip(*points, strict=True)
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(6, 4))
        axes.plot(kl, reward, color=FAINT, alpha=0.5, linewidth=0.8, zorder=1)
        shown = axes.scatter(kl, reward, c=steps, cmap="viridis", s=14, zorder=2, vmin=0)
        bar = figure.colorbar(shown, label="step")
        bar.ax.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        bar.outline.set_visible(False)
        axes.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
        axes.locator_params(axis="x", nbins=6)
        axes.grid()
        axes.set(xlabel="KL to the starting model (nats per token)", ylabel="mean reward (higher is better)")
        axes.set_title(short_name(title, 50))
        save(figure, file)
    return [file.name]
