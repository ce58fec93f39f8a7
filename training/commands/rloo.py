"""Reinforcement with TRL's RLOOTrainer: scratch rloo --config rloo.yaml

As `scratch grpo`, whose help has the rewards and the data; here an answer's advantage is its reward, less KL times
beta, above the mean of the other answers to the same prompt. `trl rloo --config` runs the same file.
"""


from training.tuning.dataset_formats import PROMPTS
from training.tuning.trl import train


def main(arguments: list[str]) -> None:
    train(
        "rloo",
        "training.tuning.grpo:LeaveOneOutTrainer",
        "trl:RLOOConfig",
        PROMPTS,
        arguments,
        __doc__,
        script_class="trl.scripts.rloo:RLOOScriptArguments",
    )
