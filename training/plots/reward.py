"""A picture of what reinforcement gained, and how far it went from the model it started from."""

from pathlib import Path
from typing import Any

from training.plots.style import STYLE


def draw_reward(records: list[dict[str, Any]], file: Path, title: str) -> None:
    """Reward against KL, a point a logged step and a line from the first to the last; its colour is the step.

    The frontier of Gao, Schulman and Hilton, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760: reward
    that rises while KL stays small is gained, reward that comes only with much KL may be a reward that is gamed. As
    there, KL lies on a scale of its square root, so that one estimate far off the others does not press them together.

    Args:
        records: with `step`, `reward` and `kl` (nats per token).
    """
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    steps, kl, reward = ([record[key] for record in records] for key in ("step", "kl", "reward"))
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        axes.plot(kl, reward, color="0.8", linewidth=0.8, zorder=1)
        points = axes.scatter(kl, reward, c=steps, cmap="viridis", s=14, zorder=2)
        figure.colorbar(points, label="step")
        axes.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlabel="KL to the model it started from (nats per token)", ylabel="mean reward", title=title)
        figure.savefig(file, dpi=120)
        pyplot.close(figure)
