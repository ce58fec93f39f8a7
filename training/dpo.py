"""Preference tuning with TRL's DPOTrainer: scratch dpo --config recipes/quickstart/dpo.yaml

The recipe has TRL's own field names, and `trl dpo --config` runs the same file. With `use_peft: true` it trains a LoRA
adapter, whose switched-off self is the reference model, and merges it into the weights at the end.
"""

import sys

from training.chat.trl import train


def main(arguments: list[str]) -> None:
    columns = ({"prompt", "chosen", "rejected"}, {"chosen", "rejected"})
    train("dpo", "DPOTrainer", "DPOConfig", columns, arguments, __doc__)


if __name__ == "__main__":  # as `accelerate launch -m training.dpo` does
    from training.cli import main as scratch

    sys.exit(scratch(["dpo", *sys.argv[1:]]))
