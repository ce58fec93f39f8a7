"""TRL's DPOTrainer, which refuses an unknown loss before it trains rather than at its first step."""

import re
from dataclasses import fields
from typing import Any

from trl import DPOConfig, DPOTrainer

from training.errors import UserError
from training.recipe import nearest


class PreferenceTrainer(DPOTrainer):
    """TRL's trainer.

    Raises:
        UserError: a `loss_type` that it does not know.
    """

    def __init__(self, *, args: DPOConfig, **others: Any):
        (field,) = (field for field in fields(DPOConfig) if field.name == "loss_type")
        known = re.findall(r"`'(\w+)'`", field.metadata["help"])  # TRL lists them nowhere else
        for loss in args.loss_type:
            if loss not in known:
                raise UserError(f"'loss_type': no loss '{loss}'; {nearest(loss, known)}")
        super().__init__(args=args, **others)
