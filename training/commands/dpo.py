"""scratch dpo: preference tuning with TRL's DPOTrainer.

    scratch dpo --config recipes/quickstart/dpo.yaml
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training dpo --config RECIPE

The recipe has TRL's own field names, and `trl dpo --config RECIPE` runs it too. With `use_peft: true` it trains a LoRA
adapter. The model without its adapter is the reference model; at the end the adapter is merged into the weights.

Data: the columns prompt, chosen and rejected (text, or messages); or chosen and rejected with the prompt in both; or
instruction, optionally input, chosen and rejected. Records longer than max_length are truncated, and those whose prompt
fills it are dropped and counted.

The keys that matter most, with their defaults:
    beta: 0.1                                   higher values keep the model closer to the reference model
    loss_type: [sigmoid]                        or a list of losses, with loss_weights
    learning_rate: 1.0e-6, max_length: 1024
"""

from training.tuning.dataset_formats import PREFERENCES
from training.tuning.pipeline.recipe import open_stage, parse_recipe, read_recipe


def main(arguments: list[str]) -> None:
    """Run the stage.

    1. Read the recipe; stop if the output is up to date. TRL is imported only after that.
    2. Load the data, detect their format, and convert them to TRL's.
    3. Load the model and its tokenizer.
    4. Build the trainer: it tokenizes, and checks losses and lengths.
    5. Train, resuming from the newest checkpoint; save the model, with its adapter merged in.

    Raises:
        UserError: a mistake in the recipe or the data, before anything is written.
    """
    values, where = read_recipe("dpo", arguments, __doc__)
    stage = open_stage("dpo", values, where, arguments)
    if stage.is_current():
        return

    from training.tuning.dpo import ScratchDPOTrainer
    from training.tuning.pipeline.datasets import load_splits
    from training.tuning.pipeline.model import load_model
    from training.tuning.pipeline.training import build_trainer, train_and_save

    recipe = parse_recipe("dpo", values, where)
    splits = load_splits(recipe, PREFERENCES)
    model, tokenizer = load_model(recipe)
    trainer = build_trainer(ScratchDPOTrainer, recipe, splits, model, tokenizer)
    train_and_save(stage, recipe, trainer)
