"""Evaluation items: texts from files of records and from lm-eval's task files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from training.common.errors import UserError, one_line
from training.common.files import check_file
from training.common.json_files import fits
from training.common.packages import how_to_install
from training.corpus.sources.records import RECORD_ENDINGS, holds_records, read_records
from training.stages.recipe import nearest
from training.stages.yaml_values import load_yaml

_TASKS = (".yaml", ".yml")
# A task is scored on its test split, or on its validation split if it has no test split.
_SCORED_ON = ("test_split", "validation_split")


def read_items(path: Path, fields: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Names and texts of the items in a file: every text of a record, lists and mappings in it included.

    Args:
        path: records, see `read_records`, or an lm-eval task (.yaml) whose data is such a local file or a dataset that
            `datasets` can open.
        fields: of a record; all of them, if none is given.

    Yields:
        The file's (or task's) name with the line's number, and a text; several texts of a record come one by one.

    Raises:
        UserError: no such file, an unknown kind, not readable, or a record without one of the fields.
    """
    check_file(path, "evaluation")
    if path.name.endswith(_TASKS):
        yield from _task_items(path, fields)
    elif holds_records(path.name):
        yield from _texts_of(path.name, read_records(path), fields)
    else:
        raise UserError(f"'evaluation': {path}: unknown file type; supported: {RECORD_ENDINGS}, {' '.join(_TASKS)}")


def _texts_of(
    name: str, records: Iterator[tuple[int, dict[str, Any]]], fields: Sequence[str]
) -> Iterator[tuple[str, str]]:
    for number, record in records:
        for field in fields or record:
            if field not in record:
                raise UserError(f"'fields': {name}:{number} has no field '{field}'; {nearest(field, record)}")
            for text in texts_in(record[field]):
                yield f"{name}:{number}", text


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from texts_in(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts_in(part)


class _TaskLoader(yaml.SafeLoader):
    """YAML loader for task files, which ignores their Python functions (`!function utils.process_docs`)."""


_TaskLoader.add_constructor("!function", lambda loader, node: None)


def _read_task(path: Path, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a task, with those of the files that it includes.

    Args:
        including: the files that led here, resolved.
    """
    check_file(path, "evaluation")
    if path.resolve() in including:
        raise UserError(f"{path} includes itself; remove its 'include'")
    try:
        task = load_yaml(path.read_text(encoding="utf-8"), _TaskLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(task, dict):
        raise UserError(f"{path}: an lm-eval task is a mapping of keys, not a {type(task).__name__}")
    included: dict[str, Any] = {}
    includes = task.pop("include", [])
    includes = [includes] if isinstance(includes, str) else includes
    if not fits(includes, [str]):
        raise UserError(f"{path}: 'include' takes the name of a file, or several, not {includes!r:.60}")
    for name in includes:
        included |= _read_task(path.parent / name, (*including, path.resolve()))
    return included | task


def task_files(path: Path) -> list[Path]:
    """Local files of the records that an lm-eval task is scored on; none for a Hub dataset, or if `path` is not a task.

    Raises:
        UserError: no such task, one that cannot be read, or one without a split to score.
    """
    check_file(path, "evaluation")
    return _files(path, *_scored(path)) if path.name.endswith(_TASKS) else []


def _scored(path: Path) -> tuple[dict[str, Any], str]:
    """A task, and the split of its data that it is scored on."""
    task = _read_task(path)
    if not fits(task, {"task": str, "dataset_path": str}):
        raise UserError(f"{path} has no 'task' with a 'dataset_path'; list the files of single tasks")
    splits = [task[key] for key in _SCORED_ON if task.get(key) and isinstance(task[key], str)][:1]
    if not splits:
        raise UserError(f"{path} has neither 'test_split' nor 'validation_split'")
    return task, splits[0]


def _files(path: Path, task: dict[str, Any], split: str) -> list[Path]:
    files = data_files(path, task)
    if task["dataset_path"] != "json" or not files:
        return []
    if None not in files and split not in files:
        raise UserError(f"{path}: 'data_files' has no split '{split}'; {nearest(str(split), map(str, files))}")
    return [Path(file) for file in files[None if None in files else split]]


def data_files(path: Path, task: dict[str, Any]) -> dict[str | None, list[str]]:
    """The data files that a task names, by split, or under None for all splits; none for a Hub dataset.

    Args:
        path: of the task, for errors.
        task: its keys.

    Raises:
        UserError: names of another form.
    """
    options = task.get("dataset_kwargs") or {}
    named = (options.get("data_files") or {}) if isinstance(options, dict) else options
    by_split = named if isinstance(named, dict) else {None: named}
    files = {split: [names] if isinstance(names, str) else names for split, names in by_split.items()}
    if not fits(files, {str: [str]}):
        raise UserError(
            f"{path}: the data_files in 'dataset_kwargs' are a file, a list, or either by split, not {named!r:.60}"
        )
    return files


def _task_items(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    task, split = _scored(path)
    files = _files(path, task, split)
    for file in files:
        if not file.is_file():
            raise UserError(f"{path}: 'data_files': no such file: {file} (relative to the current folder)")
        yield from _texts_of(task["task"], read_records(file), fields)
    if not files:
        options = task.get("dataset_kwargs") or {}
        rows = _dataset(path, task["dataset_path"], task.get("dataset_name"), split, options)
        yield from _texts_of(task["task"], enumerate(rows, 1), fields)


def _dataset(path: Path, dataset: str, subset: str | None, split: str, options: dict[str, Any]) -> Iterator[dict]:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{path}: '{dataset}' needs the package datasets, which is not installed; {how_to_install('datasets')}"
        ) from None
    try:
        return iter(datasets.load_dataset(dataset, name=subset, split=split, **options))
    except Exception as error:  # of datasets, or of a library that reads the files
        reason = one_line(error.__cause__ or error) or type(error).__name__
        raise UserError(f"{path}: dataset '{dataset}' cannot be read: {reason}") from None
