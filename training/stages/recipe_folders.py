"""Folders of recipes, in the current folder and shipped: found by name, listed, and copied."""

import re
import shutil
import uuid
from pathlib import Path

from training.common.errors import UserError, nearest
from training.common.files import move
from training.common.shipped import PACKAGE, RECIPES, with_shipped
from training.stages.recipe import STAGES

NAMING_PATHS = (".yaml", ".md", ".py")  # of the files of a recipe; others are data


def find_folder(name: str) -> Path:
    """The recipe folder of this name, here or in `recipes`. Raises UserError: there is none."""
    folders = (Path(name), Path(RECIPES, name))
    for holds in (stages_in, Path.is_dir):  # a folder without recipes can only be copied
        for folder in folders:
            if holds(with_shipped(folder)):
                return folder
    raise UserError(f"{name}: no such recipe folder; {nearest(name, known_recipes())}")


def known_recipes() -> dict[str, list[str]]:
    """The stages of each folder in `recipes`, by its name."""
    stages = {folder.name: stages_in(folder) for folder in folders_of_recipes()}
    return {name: found for name, found in stages.items() if found}


def stages_in(folder: Path) -> list[str]:
    """The stages that have a recipe in a folder, in the order of running."""
    return [stage for stage in STAGES if (folder / f"{stage}.yaml").is_file()]


def describe_recipes() -> str:
    """The list of recipes that `scratch run` without a folder prints."""
    lines = [f"  {name:<12} {', '.join(stages)}" for name, stages in known_recipes().items()]
    usage = "scratch run NAME runs one; scratch run NAME --copy_to FOLDER copies it, to edit"
    return "\n".join(["Recipes, and their stages:", *lines, "", usage])


def recipes_in(folder: Path) -> dict[str, Path]:
    """Recipe file of each stage of a folder, in the order of running. Raises UserError: there is none."""
    found = {stage: folder / f"{stage}.yaml" for stage in stages_in(with_shipped(folder))}
    if not found:
        names = ", ".join(f"{stage}.yaml" for stage in STAGES)
        raise UserError(f"{folder}: no recipe in it; recipes are named {names}")
    return found


def folders_of_recipes() -> list[Path]:
    """The folders in `recipes`, here and shipped, sorted by name."""
    names = {path.name for place in (Path(), PACKAGE) for path in (place / RECIPES).glob("*/")}
    return [with_shipped(Path(RECIPES, name)) for name in sorted(names)]


def copy_recipes(folder: Path, copy: Path) -> None:
    """Copy `recipes/NAME`. The copy names itself, and its own folder in `runs`, where the original names its own.

    Raises:
        UserError: the copy exists, or its name would need quotes in YAML.
    """
    if copy.exists():
        raise UserError(f"'copy_to': {copy} exists; name a new folder")
    if not re.fullmatch(r"[\w./-]+", str(copy)):
        raise UserError(f"'copy_to': '{copy}' is not a plain path; use letters, digits, - and _")
    temporary = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}.tmp")
    try:
        shutil.copytree(with_shipped(folder), temporary, ignore=shutil.ignore_patterns("__pycache__"))
        for file in (path for path in temporary.rglob("*") if path.suffix in NAMING_PATHS and path.is_file()):
            _rename_paths(file, folder, copy)
        move(temporary, copy)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _rename_paths(file: Path, folder: Path, copy: Path) -> None:
    """Replace the paths of one recipe folder and of its runs in a file, whatever its encoding, by those of another."""
    end = r"(?![\w-])" if len(folder.parts) > 1 else "(?=/)"  # a name alone may be any word
    content = original = file.read_bytes()
    for pattern, own in (
        (re.escape(folder.as_posix()) + end, copy.as_posix()),
        (re.escape(f"runs/{folder.name}") + r"(?![\w-])", f"runs/{copy.name}"),
    ):
        content = re.sub(rb"(?<![\w/.-])" + pattern.encode(), own.encode(), content)
    if content != original:
        file.write_bytes(content)
