"""Preference tuning on answers judged one by one, with TRL's KTOTrainer: scratch kto --config kto.yaml

The recipe has TRL's own field names, and `trl kto --config` runs the same file. The data have the columns prompt,
completion (both text, or both messages) and label, which is true for a good answer.
"""


from training.tuning.dataset_formats import JUDGED
from training.tuning.trl import train


def main(arguments: list[str]) -> None:
    train("kto", "training.tuning.dpo:JudgementTrainer", "trl:KTOConfig", JUDGED, arguments, __doc__)
