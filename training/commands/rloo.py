"""scratch rloo: reinforcement learning with a leave-one-out baseline, with TRL's RLOOTrainer.

    scratch rloo --config rloo.yaml
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training rloo --config RECIPE

Rewards and data are as for `scratch grpo`; see its help. The advantage of a completion is its reward, minus beta times
KL, minus the mean of the other completions of the same prompt. `trl rloo --config RECIPE` runs the same recipe.
"""

from training.tuning.dataset_formats import PROMPTS
from training.tuning.pipeline.recipe import open_stage, parse_recipe, read_recipe


def main(arguments: list[str]) -> None:
    """Run the stage.

    1. Read the recipe; stop if the output is up to date. TRL is imported only after that.
    2. Load the prompts, and convert them to TRL's format.
    3. Find the reward functions, and check that the data have the columns they need.
    4. Load the model and its tokenizer.
    5. Build the trainer: it checks that prompts leave room for completions.
    6. Train, resuming from the newest checkpoint; save the model, with its adapter merged in, and samples and a plot.

    Raises:
        UserError: a mistake in the recipe or the data, before anything is written; or a reward that fails.
    """
    values, where = read_recipe("rloo", arguments, __doc__)
    stage = open_stage("rloo", values, where, arguments)
    if stage.is_current():
        return

    from training.tuning.online_rl import load_rewards
    from training.tuning.pipeline.datasets import load_splits
    from training.tuning.pipeline.model import load_model
    from training.tuning.pipeline.training import build_trainer, train_and_save
    from training.tuning.rloo import ScratchRLOOTrainer

    recipe = parse_recipe("rloo", values, where)
    splits = load_splits(recipe, PROMPTS)
    rewards = load_rewards(recipe, splits.columns)
    model, tokenizer = load_model(recipe)
    trainer = build_trainer(ScratchRLOOTrainer, recipe, splits, model, tokenizer, reward_funcs=rewards)
    train_and_save(stage, recipe, trainer)
