"""Data sets in local folders: the files of one split, as `save_to_disk` or a clone from the Hub has them."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from training.common.errors import UserError, one_line
from training.common.json_files import read_json
from training.common.packages import how_to_install
from training.corpus.sources.config import SourceConfig
from training.stages.recipe import nearest

CARD = "README.md"
# Keys of a card on the Hub that other README.md files do not have.
_CARD_KEYS = {
    *("configs", "dataset_info", "task_categories", "task_ids", "size_categories", "annotations_creators"),
    *("language_creators", "source_datasets", "multilinguality"),
}
_FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---\s", re.DOTALL)
# Files as `push_to_hub` names them, such as train-00000-of-00004.parquet.
_SHARD = re.compile(r"(train|validation|valid|val|dev|test|eval)[\w.]*-\d{5}-of-\d{5}\..+")


def data_set_files(folder: Path, names: list[str], config: SourceConfig, key: str) -> list[Path] | None:
    """The files of a data set's split `config.split`; None for a folder that is not a data set.

    Args:
        names: of the files directly in the folder.
        key: of the source in the recipe, for error messages.

    Raises:
        UserError: no such split or subset, or a folder that cannot be read.
    """
    saved = _saved_files(folder, config, key) if {"dataset_dict.json", "state.json"} & set(names) else None
    return _clone_files(folder, config, key) if saved is None and _is_clone(folder, names) else saved


def _saved_files(folder: Path, config: SourceConfig, key: str) -> list[Path] | None:
    """The files that `save_to_disk` listed. The folder may also hold cache files, which repeat the data."""
    try:
        splits = folder / "dataset_dict.json"
        if splits.is_file():
            _check_split(read_json(splits, {"splits": [str]})["splits"], folder, config, key)
            folder = folder / config.split
        state = folder / "state.json"
        if (folder / "dataset_info.json").is_file() and state.is_file():
            files = read_json(state, {"_data_files": [{"filename": str}]})["_data_files"]
            return [folder / row["filename"] for row in files]
    except ValueError:
        raise UserError(f"'{key}.path': {folder}: damaged; write it again with save_to_disk") from None
    return None


def _check_split(names: list[str], folder: Path, config: SourceConfig, key: str) -> None:
    if config.split not in names:
        raise UserError(f"'{key}.split': {folder} has no split '{config.split}'; {nearest(config.split, names)}")


def _is_clone(folder: Path, names: list[str]) -> bool:
    """Whether a folder holds a Hub data set, by the names of its files or by its card."""
    card = _card(folder / CARD) if CARD in names and (folder / CARD).is_file() else {}
    below = os.listdir(folder / "data") if card and (folder / "data").is_dir() else []
    return bool(card.keys() & _CARD_KEYS) or any(map(_SHARD.fullmatch, [*names, *below]))


def _card(file: Path) -> dict[str, Any]:
    """The YAML at the beginning of a card; empty without it."""
    head = _FRONT_MATTER.match(file.read_text(encoding="utf-8", errors="replace"))
    try:
        content = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, ValueError, RecursionError):  # the second for a date such as 2024-13-01
        return {}
    return content if isinstance(content, dict) else {}


def _clone_files(folder: Path, config: SourceConfig, key: str) -> list[Path]:
    """The files that `datasets` would read of a split."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise UserError(
            f"'{key}.path': {folder} is a Hub data set, whose splits need the package datasets, which is not "
            f"installed; {how_to_install('datasets')}"
        ) from None
    try:
        with tempfile.TemporaryDirectory() as cache:
            builder = datasets.load_dataset_builder(str(folder), name=config.subset, cache_dir=cache)
            found = {str(split): files for split, files in builder.config.data_files.items()}
        files = [folder / Path(file).relative_to(folder.resolve()) for file in found.get(config.split, [])]
    except Exception as error:  # of datasets, or of any library that parses the card or transfers the bytes
        raise UserError(
            f"'{key}.path': {folder} is a Hub data set that cannot be opened ({one_line(error)}); set '{key}.subset', "
            "or name its files with a glob"
        ) from None
    _check_split(list(found), folder, config, key)
    return files
