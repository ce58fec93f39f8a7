"""Preference tuning with TRL's DPOTrainer: scratch dpo --config recipes/quickstart/dpo.yaml

The recipe has TRL's own field names, and `trl dpo --config` runs the same file. With `use_peft: true` it trains a LoRA
adapter, whose switched-off self is the reference model, and merges it into the weights at the end.

The data have the columns prompt, chosen and rejected (text, or messages), or chosen and rejected alone, or instruction,
perhaps input, chosen and rejected.
"""


from training.tuning.dataset_formats import PREFERENCES
from training.tuning.trl import train


def main(arguments: list[str]) -> None:
    train("dpo", "training.tuning.dpo:PreferenceTrainer", "trl:DPOConfig", PREFERENCES, arguments, __doc__)
