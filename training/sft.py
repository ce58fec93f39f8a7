"""Supervised fine-tuning with TRL's SFTTrainer: scratch sft --config recipes/quickstart/sft.yaml

The recipe has TRL's own field names, and `trl sft --config` runs the same file.
"""

import sys

from training.chat.trl import train


def main(arguments: list[str]) -> None:
    columns = ({"messages"}, {"prompt", "completion"}, {"text"}, {"conversations"}, {"input_ids"})
    train("sft", "SFTTrainer", "SFTConfig", columns, arguments, __doc__)


if __name__ == "__main__":  # as `accelerate launch -m training.sft` does
    from training.cli import main as scratch

    sys.exit(scratch(["sft", *sys.argv[1:]]))
