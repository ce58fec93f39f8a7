"""scratch kto: preference tuning on answers labelled good or bad, with TRL's KTOTrainer.

    scratch kto --config kto.yaml
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training kto --config RECIPE

The recipe has TRL's own field names, and `trl kto --config RECIPE` runs it too.

Data (unpaired preference): the columns prompt, completion (both text, or both messages) and label, which is true for a
good answer. Records longer than max_length are truncated, and those whose prompt fills it are dropped and counted.
"""

from training.tuning.dataset_formats import UNPAIRED
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
    values, where = read_recipe("kto", arguments, __doc__)
    stage = open_stage("kto", values, where, arguments)
    if stage.is_current():
        return

    from training.tuning.kto import ScratchKTOTrainer
    from training.tuning.pipeline.datasets import load_splits
    from training.tuning.pipeline.model import load_model
    from training.tuning.pipeline.training import build_trainer, train_and_save

    recipe = parse_recipe("kto", values, where)
    splits = load_splits(recipe, UNPAIRED)
    model, tokenizer = load_model(recipe)
    trainer = build_trainer(ScratchKTOTrainer, recipe, splits, model, tokenizer)
    train_and_save(stage, recipe, trainer)
