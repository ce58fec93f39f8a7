"""Preference tuning without a reference model, with TRL's ORPOTrainer: scratch orpo --config orpo.yaml

The recipe has TRL's own field names. In TRL this trainer is experimental and has no program of its own. The data are
those of `scratch dpo`.
"""

import sys

from training.chat.shapes import PREFERENCES
from training.chat.trl import train


def main(arguments: list[str]) -> None:
    train(
        "orpo", "training.chat.odds:OddsRatioTrainer", "training.chat.odds:ORPOConfig", PREFERENCES, arguments, __doc__
    )


if __name__ == "__main__":  # as `accelerate launch -m training.orpo` does
    from training.cli import main as scratch

    sys.exit(scratch(["orpo", *sys.argv[1:]]))
