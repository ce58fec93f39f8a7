"""Content of the distribution: extras that install optional packages, and recipes."""

import importlib.metadata
import re
import shlex
import shutil
import uuid
from pathlib import Path

from training.common.errors import UserError

DISTRIBUTION = "scratch-llm"

# Module: extra in pyproject.toml. Other modules are installed with the package itself.
EXTRAS = {
    "trl": "train",
    "peft": "train",
    "sklearn": "train",
    "lm_eval": "eval",
    "evaluate": "eval",
    "datasets": "data",
    "pyarrow": "data",
    "ftfy": "data",
    "py3langid": "data",
    "resiliparse": "data",
    "datatrove": "cluster",
    "loguru": "cluster",
    "ray": "ray",
    "fastapi": "serve",
    "uvicorn": "serve",
    "httpx2": "serve",
    "filelock": "serve",
    "starlette": "serve",
    "ctranslate2": "engines",
    "deepspeed": "deepspeed",
    "tensorboard": "track",
    "trackio": "track",
}
PACKAGES = {"azureml": "azureml-sdk", "flash_attn": "flash-attn --no-build-isolation"}  # where `pip` has other names


RECIPES = "recipes"
_NAMING_PATHS = (".yaml", ".md", ".py")  # of the files of a recipe; others are data
_PACKAGE = Path(__file__).parents[1]  # holds recipes/: in the repository as a link, installed as a copy


def with_shipped(path: str | Path) -> Path:
    """A path as it is; or, if it names a folder in `recipes` that is not here, the same path in the shipped recipes."""
    path = Path(path)
    if path.parts[:1] != (RECIPES,) or Path(*path.parts[:2]).exists():
        return path
    shipped = _PACKAGE / path
    return shipped if shipped.exists() else path


def folders_of_recipes() -> list[Path]:
    """The folders in `recipes`, here and shipped, sorted by name."""
    names = {path.name for place in (Path(), _PACKAGE) for path in (place / RECIPES).glob("*/")}
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
        for file in (path for path in temporary.rglob("*") if path.suffix in _NAMING_PATHS and path.is_file()):
            _rename_paths(file, folder, copy)
        temporary.rename(copy)
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


def how_to_install(module: str) -> str:
    """The command that installs a missing module: its extra in a checkout, elsewhere the packages of that extra."""
    top = module.partition(".")[0]
    if top not in EXTRAS:
        return f"pip install {PACKAGES.get(top, top.replace('_', '-'))}"
    extra = EXTRAS[top]
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        return f'pip install -e ".[{extra}]"'
    required = [requirement.partition(";") for requirement in importlib.metadata.requires(DISTRIBUTION) or []]
    names = [name.strip() for name, _, condition in required if condition.strip() == f'extra == "{extra}"']
    return shlex.join(["pip", "install", *names])
