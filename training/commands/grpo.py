"""scratch grpo: reinforcement learning from verifiable rewards or a reward model, with TRL's GRPOTrainer.

    scratch grpo --config recipes/arithmetic/grpo.yaml
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training grpo --config RECIPE

The recipe has TRL's own field names. `trl grpo --config RECIPE` runs it too, if its rewards are TRL's or import paths
such as training.tuning.reward_functions.number. Rewards are added up, weighted by reward_weights if given:
    reward_funcs: [parses]      1 if the answer is Python                                         (no column)
                  [defines]     1 if its program defines the function named in `name`             (name)
                  [doctest]     1 if its program passes the examples in `tests`, in the sandbox   (tests)
                  [number]      1 if its last number is that of `answer`                          (answer)
                  [format]      1 if the regular expression in `pattern` matches all of it        (pattern)
                  [my.module.function], or one of TRL's rewards by name
    reward_model_name_or_path   folder of a `scratch reward` model, alone or with reward_funcs

Data: a column prompt (text, or messages) or question; all other columns go to the rewards.

The keys that matter most, with their defaults:
    num_generations: 8                          completions per prompt, whose rewards are compared with each other
    max_completion_length: 512                  tokens in a completion
    beta: 0.0                                   weight of the KL penalty; above 0, KL is logged and plotted
    learning_rate: 1.0e-6, temperature: 1.0, per_device_train_batch_size: 8

Output: the model, metrics.jsonl (reward, KL, lengths), samples.jsonl (completions and their rewards) and reward.png.
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
    values, where = read_recipe("grpo", arguments, __doc__)
    stage = open_stage("grpo", values, where, arguments)
    if stage.is_current():
        return

    from training.tuning.grpo import ScratchGRPOTrainer, check_choices
    from training.tuning.online_rl import load_rewards
    from training.tuning.pipeline.datasets import load_splits
    from training.tuning.pipeline.model import load_model
    from training.tuning.pipeline.training import build_trainer, train_and_save

    recipe = parse_recipe("grpo", values, where)
    check_choices(recipe)
    splits = load_splits(recipe, PROMPTS)
    rewards = load_rewards(recipe, splits.columns)
    model, tokenizer = load_model(recipe)
    trainer = build_trainer(ScratchGRPOTrainer, recipe, splits, model, tokenizer, reward_funcs=rewards)
    train_and_save(stage, recipe, trainer)
