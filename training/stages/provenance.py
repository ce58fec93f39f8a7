"""The record of a stage, `provenance.json`: what wrote a folder, from what, and whether it is unchanged since."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Set
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import files_below, find_damage
from training.common.json_files import read_json

# The stages that write a language model.
LANGUAGE_MODELS = ("pretrain", "sft", "dpo", "kto", "orpo", "grpo", "rloo", "export", "import")
PROVENANCE, RECIPE = "provenance.json", "recipe.yaml"
PARTIAL, REPLACED = ".partial", ".replaced"
# No input has more files; a folder that does, such as /, was named by mistake and would be read for hours.
MOST_FILES = 100_000
_RECORD = {
    **{"stage": str, "fingerprint": str, "recipe": {str: object}, "inputs": {str: str}, "versions": {str: str}},
    **{"seconds": (int, float), "metrics": {str: object}, "complete?": bool, "files?": {str: (int, str)}},
    "command": str,
}
_PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "datasets", "trl", "peft", "lm_eval")


def digest(path: str | Path, key: str = "input") -> str:
    """A hash that identifies an input: of a stage's output its fingerprint, of anything else the bytes of its files.

    A stage's output that somebody has changed since has another hash.

    Args:
        path: file or folder.
        key: of the recipe that names it, for errors.

    Raises:
        UserError: it does not exist, cannot be read, is a folder of too many files, is the output of a stage that did
            not finish, or has lost a file since.
    """
    path = Path(path)
    record = read_provenance(path)
    if record:
        if record.get("complete") is False:
            raise UserError(f"'{key}': {path} is not complete yet; finish the stage that writes it first")
        damage = find_damage(path, record.get("files", {}))
        if damage.missing:
            raise UserError(f"'{key}': {path} is incomplete ({damage}); run `{record['command']}` again")
        if damage.changed:
            return hashlib.sha256(as_json([record["fingerprint"], damage.changed]).encode()).hexdigest()
        return record["fingerprint"]
    if not path.exists():
        if staging_dir(path).is_dir():
            raise UserError(f"'{key}': {path} is not complete yet; finish the stage that writes it first")
        raise UserError(f"'{key}': no such file or folder: {path}")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"'{key}': {path} is a pipe or a device; give a file or a folder")
    hasher = hashlib.sha256()
    files = [path] if path.is_file() else files_below(path, MOST_FILES)
    if len(files) > MOST_FILES:
        raise UserError(f"'{key}': {path} holds more than {MOST_FILES:,} files; name a folder below it")
    for file in files:
        hasher.update(file.name.encode())
        try:
            with file.open("rb") as stream:
                hasher.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:  # an error of reading names no file
            raise UserError(f"'{key}': {file} cannot be read ({error.strerror}); check it, or leave it out") from None
    return hasher.hexdigest()


def check_stage(path: str | Path, *allowed: str, key: str) -> None:
    """Reject a folder that another stage wrote. A folder without provenance may come from elsewhere and passes.

    Args:
        allowed: names of stages.
        key: of the recipe that names the folder, for errors.

    Raises:
        UserError: missing, or the output of a stage not in `allowed`.
    """
    path = Path(path)
    if not path.exists():
        hint = "not complete yet" if staging_dir(path).exists() else "no such folder"
        raise UserError(f"'{key}': {path}: {hint}; run `scratch {allowed[0]}` first")
    stage = written_by(path)
    if stage and stage not in allowed:
        raise UserError(f"'{key}': {path} holds the output of '{stage}'; expected the output of {' or '.join(allowed)}")


def written_by(path: str | Path) -> str | None:
    """The stage that wrote a folder, or None."""
    return read_provenance(path).get("stage")


def read_provenance(path: str | Path) -> dict[str, Any]:
    """The content of `provenance.json` in a folder; empty for a folder that no stage wrote.

    Raises:
        UserError: the file is damaged.
    """
    file = Path(path) / PROVENANCE
    try:
        return read_json(file, _RECORD) if file.is_file() else {}
    except ValueError:
        raise UserError(f"{file} is damaged; delete {path} and run its stage again") from None


def real_dir(output_dir: str | Path) -> Path:
    """The folder of an output: where `output_dir` leads if it is a link, which stays."""
    output_dir = Path(output_dir)
    return Path(os.path.realpath(output_dir)) if output_dir.is_symlink() else output_dir


def staging_dir(output_dir: str | Path) -> Path:
    """The folder in which a stage works until its output is complete."""
    return beside(real_dir(output_dir), PARTIAL)


def beside(folder: Path, suffix: str) -> Path:
    """The folder's path with a suffix; of `.` and `..`, which do not end in their name, the whole path's."""
    folder = folder.resolve() if folder.name in ("", "..") else folder
    return folder.parent / (folder.name + suffix)


def essential_recipe(recipe: Any, runtime_keys: Set[str] = frozenset()) -> dict[str, Any]:
    """A recipe, a dataclass or a mapping, without the keys that cannot change the output, and its place."""
    return {key: value for key, value in mapping_of(recipe).items() if key not in runtime_keys | {"output_dir"}}


def mapping_of(recipe: Any) -> dict[str, Any]:
    return dataclasses.asdict(recipe) if dataclasses.is_dataclass(recipe) else dict(recipe)


def has_recipe(folder: str | Path, recipe: Any, runtime_keys: Set[str] = frozenset()) -> bool:
    """Whether a stage wrote `folder` from this recipe. Inputs are not compared, which may take long; see `Stage`."""
    record = read_provenance(folder)
    return bool(record) and as_json(essential_recipe(record["recipe"], runtime_keys)) == as_json(
        essential_recipe(recipe, runtime_keys)
    )


def is_whole(folder: Path) -> bool:
    """Whether a folder is the complete output of a stage, with every file as it was written."""
    record = read_provenance(folder)
    files = record.get("files", {})  # an early record lists files and has no `complete`
    return bool(record.get("complete", files)) and not find_damage(folder, files)


def is_set_aside(folder: Path) -> bool:
    """Whether a folder is, by its name, unfinished work, or a replaced output that is being deleted."""
    return folder.suffix in (PARTIAL, REPLACED)


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that outputs depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def names_folder(value: Any, folder: Path) -> bool:
    """Whether a part of a recipe is the path of a folder, or of something in it."""
    if isinstance(value, dict):
        return any(names_folder(part, folder) for item in value.items() for part in item)
    if isinstance(value, list):
        return any(names_folder(part, folder) for part in value)
    return isinstance(value, str) and Path(value).absolute().is_relative_to(folder.absolute())


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
