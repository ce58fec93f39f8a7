"""Task files of lm-eval in a folder of the recipe, whose data `scratch prepare` writes."""

from collections.abc import Iterable
from pathlib import Path

from training.common.errors import UserError
from training.common.shipped import with_shipped
from training.corpus.dedup.evaluation_items import data_files
from training.stages.yaml_values import read_yaml


def local_tasks(tasks_dir: Path) -> dict[str, Path]:
    """Task names to task files of a folder, which may be one of the shipped recipes."""
    names = {path: read_yaml(path).get("task") for path in sorted(with_shipped(tasks_dir).glob("*.yaml"))}
    return {name: path for path, name in names.items() if isinstance(name, str)}


def check_task_data(path: Path, data: Path | None) -> None:
    """Raise UserError if the data files of a task are missing. `data` is the output of `scratch prepare`."""
    for file in _data_files(path):
        located = _locate(file, data)
        if not located.is_file():
            raise UserError(f"'tasks': {path}: its data {located} are missing; run `scratch prepare` first")


def copy_tasks(files: Iterable[Path], data: Path | None, destination: Path) -> None:
    """Copy task files, including comments, with the paths of their data made absolute.

    Args:
        data: the output of `scratch prepare`.
    """
    destination.mkdir(parents=True, exist_ok=True)
    for path in files:
        text = path.read_text(encoding="utf-8")
        for file in _data_files(path):
            text = text.replace(file, str(_locate(file, data).resolve()))
        (destination / path.name).write_text(text, encoding="utf-8")


def _data_files(path: Path) -> list[str]:
    """The data files that a task names; none for a task on the Hub's data."""
    return [file for files in data_files(path, read_yaml(path)).values() for file in files]


def _locate(file: str, data: Path | None) -> Path:
    """The data of a task: the file of that name in `data/tasks`, so that one task file serves every recipe, else the
    path as written."""
    if data is None:
        return Path(file)
    prepared = data / "tasks" / Path(file).name
    return Path(file) if Path(file).is_file() and not prepared.is_file() else prepared
