"""Preference tuning on answers judged one by one, with TRL's KTOTrainer: scratch kto --config kto.yaml

The recipe has TRL's own field names, and `trl kto --config` runs the same file. The data have the columns prompt,
completion (both text, or both messages) and label, which is true for a good answer.
"""

import sys

from training.chat.shapes import JUDGED
from training.chat.trl import train


def main(arguments: list[str]) -> None:
    train("kto", "training.chat.preferred:JudgementTrainer", "trl:KTOConfig", JUDGED, arguments, __doc__)


if __name__ == "__main__":  # as `accelerate launch -m training.kto` does
    from training.cli import main as scratch

    sys.exit(scratch(["kto", *sys.argv[1:]]))
