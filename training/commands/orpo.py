"""scratch orpo: preference tuning without a reference model, with TRL's ORPOTrainer. Experimental in TRL.

    scratch orpo --config orpo.yaml
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training orpo --config RECIPE

The recipe has TRL's own field names. TRL keeps this trainer in `trl.experimental`: any release may change or remove it,
and TRL has no command for it.

Data: the formats of `scratch dpo`.
"""

from training.tuning.dataset_formats import PREFERENCES
from training.tuning.pipeline.recipe import open_stage, parse_recipe, read_recipe


def main(arguments: list[str]) -> None:
    """Run the stage.

    1. Read the recipe; stop if the output is up to date. TRL is imported only after that.
    2. Load the data, detect their format, and convert them to TRL's.
    3. Load the model and its tokenizer.
    4. Build the trainer: it tokenizes, and drops records without an answer.
    5. Train, resuming from the newest checkpoint; save the model, with its adapter merged in.

    Raises:
        UserError: a mistake in the recipe or the data, before anything is written.
    """
    values, where = read_recipe("orpo", arguments, __doc__)
    stage = open_stage("orpo", values, where, arguments)
    if stage.is_current():
        return

    from training.tuning.orpo import ScratchORPOTrainer
    from training.tuning.pipeline.datasets import load_splits
    from training.tuning.pipeline.model import load_model
    from training.tuning.pipeline.training import build_trainer, train_and_save

    recipe = parse_recipe("orpo", values, where)
    splits = load_splits(recipe, PREFERENCES)
    model, tokenizer = load_model(recipe)
    trainer = build_trainer(ScratchORPOTrainer, recipe, splits, model, tokenizer)
    train_and_save(stage, recipe, trainer)
