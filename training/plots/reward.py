"""A plot of reward against KL: what reinforcement learning gained, and how far it moved from the start."""

from pathlib import Path
from typing import Any

from training.plots.style import drawing


def draw_reward(records: list[dict[str, Any]], file: Path, title: str) -> None:
    """Draw reward against KL: a point per logged step, coloured by step, joined by a line.

    The axes are those of Gao, Schulman and Hilton, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760.
    Reward that rises while KL stays small is a gain; reward that needs much KL may be reward hacking. As in the paper,
    the scale of KL is its square root, so that one outlier does not squeeze the other points.

    Args:
        records: with `step`, `reward` and `kl` (nats per token).
        file: PNG to write.
    """
    import numpy as np

    steps, kl, reward = ([record[key] for record in records] for key in ("step", "kl", "reward"))
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        axes.plot(kl, reward, color="0.8", linewidth=0.8, zorder=1)
        points = axes.scatter(kl, reward, c=steps, cmap="viridis", s=14, zorder=2)
        figure.colorbar(points, label="step")
        axes.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlabel="KL to the starting model (nats per token)", title=title)
        axes.set_ylabel("mean reward (higher is better)")
        figure.savefig(file, dpi=120)
