"""Task scores by lm-eval, the program most published scores come from, on tasks kept as local files.

The task files are copied beside the results with the paths of their data made absolute, so that the stock program
repeats the figures from any folder:

    lm_eval --model hf --model_args pretrained=DIR,trust_remote_code=True --include_path OUTPUT/tasks --tasks NAME
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.errors import UserError
from training.recipe import nearest, read_yaml


def check_tasks(names: list[str], tasks_dir: Path, data: Path) -> None:
    """See that every task asked for can run: a file in `tasks_dir` whose data exist, or one of lm-eval's own.

    Raises:
        UserError: lm-eval not installed, no such task, or a task's data missing.
    """
    if not names:
        return
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("'tasks': lm-eval is not installed; `pip install lm-eval`, or give an empty list")
    local = local_tasks(tasks_dir)
    for name in names:
        for file in _data_files(local[name]) if name in local else ():
            if not _locate(file, data).is_file():
                missing = _locate(file, data)
                raise UserError(f"{local[name]}: its data {missing} are missing; run `scratch prepare` first")
    foreign = [name for name in names if name not in local]
    if foreign:
        from lm_eval.tasks import TaskManager  # indexes thousands of files: only when a task is not ours

        manager = TaskManager()
        for name in foreign:
            if not manager.match_tasks([name]):
                hint = nearest(name, [*local, *manager.all_tasks])
                raise UserError(f"'tasks': no task '{name}' in {tasks_dir} or in lm-eval; {hint}")


def local_tasks(tasks_dir: Path) -> dict[str, Path]:
    """Task names to task files of a folder."""
    files = {read_yaml(path).get("task"): path for path in sorted(tasks_dir.glob("*.yaml"))}
    return {name: path for name, path in files.items() if isinstance(name, str)}


def copy_tasks(tasks_dir: Path, data: Path, destination: Path) -> None:
    """Copy the task files, comments and all, with the paths of their data made absolute.

    Args:
        data: the output of `scratch prepare`, see `_locate`.
    """
    destination.mkdir(parents=True, exist_ok=True)
    for path in local_tasks(tasks_dir).values():
        text = path.read_text(encoding="utf-8")
        for file in _data_files(path):
            text = text.replace(file, str(_locate(file, data).resolve()))
        (destination / path.name).write_text(text, encoding="utf-8")


def _data_files(path: Path) -> list[str]:
    """The data files a task names; a task on the Hub's data names none."""
    files = (read_yaml(path).get("dataset_kwargs") or {}).get("data_files") or {}
    return list(files.values()) if isinstance(files, dict) else [files]


def _locate(file: str, data: Path) -> Path:
    """The data of a task: found by name in `data/tasks`, so that one task file serves every recipe, else as written."""
    prepared = data / "tasks" / Path(file).name
    return Path(file) if Path(file).is_file() and not prepared.is_file() else prepared


def score_tasks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: list[str], tasks_dir: Path, batch_size: int
) -> dict[str, dict[str, Any]]:
    """Run tasks through lm-eval, with its own defaults throughout.

    Args:
        tasks_dir: what `copy_tasks` wrote.

    Returns:
        For each task a figure (`value`, `stderr`, `n`, `chance`) a metric, the task's first metric first. `chance` is
        the score of picking at random, None where the task is not a choice.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    only_local = set(names) <= set(local_tasks(tasks_dir))
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its warnings tell which defaults it takes, a dozen lines a model
    try:
        results = simple_evaluate(
            model=HFLM(pretrained=model, backend="causal", tokenizer=tokenizer, batch_size=batch_size),
            tasks=names,
            task_manager=TaskManager(include_path=str(tasks_dir), include_defaults=not only_local),
        )
    finally:
        logger.setLevel(level)
    return {name: _figures(results, name) for name in results["configs"]}


def _figures(results: dict[str, Any], name: str) -> dict[str, Any]:
    config, scores = results["configs"][name], results["results"][name]
    chance = None
    if config["output_type"] == "multiple_choice":
        choices = [_count_choices(sample["arguments"]) for sample in results["samples"][name]]
        chance = sum(1 / count for count in choices) / len(choices)
    figures = {}
    for key, value in scores.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = scores.get(f"{metric}_stderr,{filtered}")
        figures[metric] = {
            "value": value,
            "stderr": stderr if isinstance(stderr, float) else None,  # lm-eval writes "N/A"
            "n": results["n-samples"][name]["effective"],
            "chance": chance,
        }
    first = config["metric_list"][0]["metric"]
    return {metric: figures[metric] for metric in sorted(figures, key=lambda metric: metric != first)}


def _count_choices(arguments: list[tuple[str, str]]) -> int:
    """Choices of one question, from the (context, continuation) pairs it was scored on.

    Either the continuations differ or, in tasks such as Winogrande, the contexts do; some metrics score each
    continuation once more without its context.
    """
    return max(len(set(column)) for column in zip(*arguments))
