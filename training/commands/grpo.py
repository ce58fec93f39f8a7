"""Reinforcement with TRL's GRPOTrainer: scratch grpo --config grpo.yaml

The recipe has TRL's own field names; `trl grpo --config` runs the same file where its rewards are TRL's or import paths
such as training.tuning.reward_functions.number. Rewards are added up, by reward_weights if given:
    reward_funcs: [parses]      the answer is Python                            (no column)
                  [doctest]     ... and gives what the examples say, in the sandbox    (tests)
                  [number]      its last number is the right one                (answer)
                  [format]      a regular expression fits the whole answer      (pattern)
                  [my.module.function], or TRL's own
    reward_model_name_or_path   a folder of scratch reward, perhaps beside them

The data have a column prompt (text, or messages) or question, and all other columns go to the rewards.

The keys that matter most, with their defaults:
    num_generations: 8                          answers to each prompt, which are compared with one another
    max_completion_length: 256
    beta: 0.0                                   price of KL to the start; above 0 it is logged, and drawn
    learning_rate: 1.0e-6, temperature: 1.0, per_device_train_batch_size: 8

The output holds metrics.jsonl (reward, KL, lengths), samples.jsonl (what was answered, and its rewards) and reward.png.
"""


from training.tuning.dataset_formats import PROMPTS
from training.tuning.trl import train


def main(arguments: list[str]) -> None:
    train(
        "grpo",
        "training.tuning.grpo:GroupTrainer",
        "trl:GRPOConfig",
        PROMPTS,
        arguments,
        __doc__,
        script_class="trl.scripts.grpo:GRPOScriptArguments",
    )
