"""Outputs of stages: who wrote them, whether they are complete, and the digests that identify them as inputs."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.hub_names import is_hub_name
from training.common.output_files import find_damage

# The stages that write a language model.
LANGUAGE_MODELS = ("pretrain", "sft", "dpo", "kto", "orpo", "grpo", "rloo", "export", "import")
PROVENANCE = "provenance.json"


def digest(path: str | Path, key: str = "input") -> str:
    """A hash that identifies an input: of a stage's output its fingerprint, of anything else the bytes of its files.

    A stage's output that somebody has changed since has another hash.

    Args:
        path: file or folder.
        key: of the recipe that names it, for errors.

    Raises:
        UserError: it does not exist, is the output of a stage that did not finish, or has lost a file since.
    """
    path = Path(path)
    record = read_provenance(path)
    if record:
        damage = find_damage(path, record.get("files", {}))
        if damage.missing:
            raise UserError(f"'{key}': {path} is incomplete ({damage}); run `{record['command']}` again")
        if damage.changed:
            return hashlib.sha256(json.dumps([record["fingerprint"], damage.changed]).encode()).hexdigest()
        return record["fingerprint"]
    if not path.exists():
        if staging_dir(path).is_dir():
            raise UserError(f"'{key}': {path} is not complete yet; finish the stage that writes it first")
        raise UserError(f"'{key}': no such file or folder: {path}")
    hasher = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        hasher.update(file.name.encode())
        with file.open("rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
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


def model_digest(model: str, key: str) -> str:
    """A hash that identifies the language model a stage starts from; a name on the Hub is returned as it is.

    Raises:
        UserError: the folder is missing, or was written by a stage that writes no language model.
    """
    if is_hub_name(model):
        return model
    check_stage(model, *LANGUAGE_MODELS, key=key)
    return digest(model, key)


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
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        raise UserError(f"{file} is damaged; delete {path} and run its stage again") from None


def real_dir(output_dir: str | Path) -> Path:
    """The folder of an output: where `output_dir` leads if it is a link, which stays."""
    output_dir = Path(output_dir)
    return Path(os.path.realpath(output_dir)) if output_dir.is_symlink() else output_dir


def staging_dir(output_dir: str | Path) -> Path:
    """The folder in which a stage works until its output is complete."""
    return beside(real_dir(output_dir), ".partial")


def beside(folder: Path, suffix: str) -> Path:
    """The folder next to `folder` whose name has a suffix."""
    return folder.with_name(folder.name + suffix)
