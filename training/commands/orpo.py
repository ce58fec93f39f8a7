"""Preference tuning without a reference model, with TRL's ORPOTrainer: scratch orpo --config orpo.yaml

The recipe has TRL's own field names. In TRL this trainer is experimental and has no program of its own. The data are
those of `scratch dpo`.
"""


from training.tuning.dataset_formats import PREFERENCES
from training.tuning.trl import train


def main(arguments: list[str]) -> None:
    train(
        "orpo", "training.tuning.orpo:OddsRatioTrainer", "training.tuning.orpo:ORPOConfig", PREFERENCES, arguments, __doc__
    )
