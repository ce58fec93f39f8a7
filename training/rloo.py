"""Reinforcement with TRL's RLOOTrainer: scratch rloo --config rloo.yaml

As `scratch grpo`, whose help has the rewards and the data; here an answer's advantage is its reward, less KL times
beta, above the mean of the other answers to the same prompt. `trl rloo --config` runs the same file.
"""

import sys

from training.chat.shapes import PROMPTS
from training.chat.trl import train


def main(arguments: list[str]) -> None:
    train(
        "rloo",
        "training.chat.reinforced:LeaveOneOutTrainer",
        "trl:RLOOConfig",
        PROMPTS,
        arguments,
        __doc__,
        script_class="trl.scripts.rloo:RLOOScriptArguments",
    )


if __name__ == "__main__":  # as `accelerate launch -m training.rloo` does
    from training.cli import main as scratch

    sys.exit(scratch(["rloo", *sys.argv[1:]]))
