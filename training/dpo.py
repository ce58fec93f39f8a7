"""Preference tuning with TRL's DPOTrainer: scratch dpo --config recipes/quickstart/dpo.yaml

The recipe has TRL's own field names, and `trl dpo --config` runs the same file. With `use_peft: true` it trains a LoRA
adapter, whose switched-off self is the reference model, and merges it into the weights at the end.

The data have the columns prompt, chosen and rejected (text, or messages), or chosen and rejected alone, or instruction,
perhaps input, chosen and rejected.
"""

import sys

from training.chat.shapes import PREFERENCES
from training.chat.trl import train


def main(arguments: list[str]) -> None:
    train("dpo", "training.chat.preferred:PreferenceTrainer", "trl:DPOConfig", PREFERENCES, arguments, __doc__)


if __name__ == "__main__":  # as `accelerate launch -m training.dpo` does
    from training.cli import main as scratch

    sys.exit(scratch(["dpo", *sys.argv[1:]]))
