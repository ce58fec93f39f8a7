"""scratch reward: train a reward model on chosen and rejected answers, with TRL's RewardTrainer.

    scratch reward --config recipes/assistant/reward.yaml
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training reward --config RECIPE

The recipe has TRL's own field names, and `trl reward --config RECIPE` runs it too. The model gives a whole conversation
one score (Bradley-Terry: the chosen answer should score higher). It opens with AutoModelForSequenceClassification.
`scratch grpo` and `scratch rloo` take its folder as reward_model_name_or_path.

Data: the formats of `scratch dpo`. With test_split_size: 0.1 and eval_strategy: epoch, a tenth of the pairs is held
out, and the accuracy on them is reported. Pairs longer than max_length are dropped and counted.
"""

from training.tuning.dataset_formats import PREFERENCES
from training.tuning.pipeline.recipe import open_stage, parse_recipe, read_recipe


def main(arguments: list[str]) -> None:
    """Run the stage.

    1. Read the recipe; stop if the output is up to date. TRL is imported only after that.
    2. Load the data, detect their format, and convert them to TRL's.
    3. Load the model and its tokenizer.
    4. Build the trainer: it tokenizes, and counts dropped pairs.
    5. Train, resuming from the newest checkpoint; save the model, with its adapter merged in.
    6. Report the accuracy on held-out pairs.

    Raises:
        UserError: a mistake in the recipe or the data, before anything is written.
    """
    values, where = read_recipe("reward", arguments, __doc__)
    stage = open_stage("reward", values, where, arguments)
    if stage.is_current():
        return

    from training.tuning.pipeline.datasets import load_splits
    from training.tuning.pipeline.model import load_model
    from training.tuning.pipeline.training import build_trainer, train_and_save
    from training.tuning.reward_model import ScratchRewardTrainer

    recipe = parse_recipe("reward", values, where)
    splits = load_splits(recipe, PREFERENCES)
    model, tokenizer = load_model(recipe)
    trainer = build_trainer(ScratchRewardTrainer, recipe, splits, model, tokenizer)
    train_and_save(stage, recipe, trainer)
