"""A reward model with TRL's RewardTrainer: scratch reward --config reward.yaml

The recipe has TRL's own field names, and `trl reward --config` runs the same file. What is trained scores a whole
conversation by one number (Bradley-Terry: the chosen answer should score higher than the rejected one); the output
opens with AutoModelForSequenceClassification, and `scratch grpo` takes it as reward_model_name_or_path.

The data have the columns prompt, chosen and rejected (text, or messages), or chosen and rejected alone, or instruction,
perhaps input, chosen and rejected. With test_split_size: 0.1 and eval_strategy: epoch a tenth is held out, and the
accuracy on it is reported. Pairs longer than max_length are left out, and counted.
"""


from training.tuning.dataset_formats import PREFERENCES
from training.tuning.trl import train


def main(arguments: list[str]) -> None:
    train(
        "reward",
        "training.tuning.reward_model:JudgeTrainer",
        "trl:RewardConfig",
        PREFERENCES,
        arguments,
        __doc__,
        model_class="transformers:AutoModelForSequenceClassification",
    )
