"""GRPO trainer: TRL's, with rewards by name, completions saved, and a plot of reward against KL."""

import re
from dataclasses import fields
from typing import Any

from trl import GRPOConfig, GRPOTrainer

from training.common.errors import UserError
from training.stages.recipe import nearest
from training.tuning.online_rl import OnlineTrainer

SCALES = ("group", "batch", "none")  # the values of `scale_rewards`; TRL lists them only in an error


def known_losses() -> list[str]:
    """The values of `loss_type`, read from the help of TRL's field: TRL lists them nowhere else."""
    (field,) = (field for field in fields(GRPOConfig) if field.name == "loss_type")
    return re.findall(r"'(\w+)'", field.metadata["help"].partition("Supported values are")[2].partition(".")[0])


def check_choices(recipe: Any) -> None:
    """Reject values that TRL would reject in the first training step.

    Args:
        recipe: a `TrlRecipe`.

    Raises:
        UserError: an unknown `loss_type` or `scale_rewards`.
    """
    for key, known in (("loss_type", known_losses()), ("scale_rewards", SCALES)):
        value = getattr(recipe.training, key)
        if value not in known:
            raise UserError(f"{recipe.where}: '{key}': no '{value}'; {nearest(value, known)}")


class ScratchGRPOTrainer(OnlineTrainer, GRPOTrainer):
    """TRL's GRPOTrainer (Shao et al., https://arxiv.org/abs/2402.03300). For errors see `OnlineTrainer`."""
