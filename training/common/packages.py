"""Optional packages: which extra of the distribution installs a module, for error messages."""

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
    "ctranslate2": "engines",
    "deepspeed": "deepspeed",
    "tensorboard": "track",
    "trackio": "track",
}


def how_to_install(module: str) -> str:
    """The command that installs a missing module, to be run in the checkout."""
    top = module.partition(".")[0]
    return f'pip install -e ".[{EXTRAS[top]}]"' if top in EXTRAS else f"pip install {top.replace('_', '-')}"
