"""Tasks that run what a model writes: lm-eval would run it in this very process, so they do not go through lm-eval."""

from collections.abc import Callable
from typing import Any

from training.errors import UserError
from training.eval.items import Outcome
from training.eval.local_data import LocalData

Scorer = Callable[..., tuple[dict[str, dict[str, Any]], list[Outcome]]]

# Name to the Hub's data set and split of its items.
CODE_TASKS = {"humaneval": ("openai/openai_humaneval", "test")}

# Name to what scores it: (model, tokenizer, items in the Hub's columns, context, batch_size) to figures a metric, as
# `harness.Scores` has them for a task, and what came of every item.
SCORERS: dict[str, Scorer] = {}


def code_items(name: str, local: LocalData | None) -> list[dict[str, Any]]:
    """The items of a task, from a folder or the Hub.

    Raises:
        UserError: no sandbox to run it in, items that are not there, or the Hub out of reach.
    """
    if name not in SCORERS:
        raise UserError(
            f"'tasks': {name} runs code that a model wrote, and there is no sandbox for it here; leave it out"
        )
    path, split = CODE_TASKS[name]
    if local:
        return local.items(path, name, split)
    import datasets

    try:
        return list(datasets.load_dataset(path, split=split))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"'tasks': the data of {name} ({path}) are not on this machine and the Hub cannot be reached "
            f"({str(error).splitlines()[0]:.120}); give a folder that holds them as 'data_dir', see docs/evaluation.md"
        ) from None
