"""Data of a tuning recipe: splits loaded by TRL's rules, and converted to the columns that the trainer reads."""

from dataclasses import dataclass, replace
from typing import Any

from training.common.errors import UserError, disk_full, one_line
from training.stages.recipe import nearest
from training.tuning.dataset_formats import DataFormat, columns_of, convert_dataset, text
from training.tuning.pipeline.local_files import JSON, RECORDS, readable_files
from training.tuning.pipeline.recipe import TrlRecipe


@dataclass
class Splits:
    """Converted data: `train`, and `evaluation` if the recipe evaluates; each a `Dataset` or an `IterableDataset`."""

    train: Any
    evaluation: Any = None

    @property
    def columns(self) -> list[str]:
        return columns_of(self.train)


def load_splits(recipe: TrlRecipe, formats: tuple[DataFormat, ...]) -> Splits:
    """Load the data, detect their format, and convert them. Prints the format, and the columns it ignores.

    Args:
        formats: those that the trainer reads; plain text is added where the trainer has a `dataset_text_field`.

    Raises:
        UserError: the data cannot be read, lack a split, or have none of the formats.
    """
    from transformers import set_seed

    from training.tuning.pipeline.progress import hide_bars_in_logs

    hide_bars_in_logs()
    script, training = recipe.script, recipe.training
    column = getattr(training, "dataset_text_field", None)
    formats = (*formats, text(column)) if column else formats
    set_seed(training.seed)  # `test_split_size` draws from numpy's generator
    with training.main_process_first(local=False):
        data = read_data(recipe)
        train, description = convert_dataset(data[script.dataset_train_split], formats, recipe.where)
        evaluation = None
        if training.eval_strategy != "no":
            evaluation, _ = convert_dataset(data[script.dataset_test_split], formats, recipe.where)
    print(f"{recipe.stage}: data format: {description}")
    splits = {"training": train} | ({} if evaluation is None else {"evaluation": evaluation})
    counts = [f"{len(data):,} {name} records" for name, data in splits.items() if hasattr(data, "__len__")]  # no stream
    if counts:
        print(f"{recipe.stage}: {', '.join(counts)}")
    return Splits(train, evaluation)


def read_data(recipe: TrlRecipe) -> Any:
    """The splits that a recipe names, as they are.

    Raises:
        UserError: data that cannot be read, or lack a split.
    """
    import datasets
    import trl

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported below, in one line
    script, mixture = recipe.script, recipe.datasets
    try:
        if mixture.datasets:
            entries = [replace(entry, data_files=readable_files(vars(entry))) for entry in mixture.datasets]
            entries = [replace(entry, path=JSON) if entry.path in RECORDS else entry for entry in entries]
            data = trl.get_dataset(replace(mixture, datasets=entries))
        else:
            data = datasets.load_dataset(
                script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming
            )
    except UserError as error:
        raise UserError(f"{recipe.where}: {error}") from None
    except Exception as error:  # of `datasets`, or of any library that parses the files
        if disk_full(error):  # that of the cache
            raise
        cause = error.__cause__ or error
        raise UserError(f"{recipe.where}: 'datasets' cannot be read ({one_line(cause)})") from cause
    evaluated = [script.dataset_test_split] if recipe.training.eval_strategy != "no" else []
    for split in (script.dataset_train_split, *evaluated):
        if split not in data:
            raise UserError(f"{recipe.where}: the data have no split '{split}'; {nearest(split, data)}")
    return data
