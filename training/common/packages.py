"""Optional packages: the extras that install them."""

import importlib.metadata
import shlex
from pathlib import Path

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
    "starlette": "serve",
    "gguf": "gguf",
    "ctranslate2": "engines",
    "deepspeed": "deepspeed",
    "tensorboard": "track",
    "trackio": "track",
}
PACKAGES = {"azureml": "azureml-sdk", "flash_attn": "flash-attn --no-build-isolation"}  # where `pip` has other names
_PACKAGE = Path(__file__).parents[1]


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
