"""The subject of a plan on the command line: a recipe folder, a config.json or a preset, and the request beside it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.shipped import with_shipped
from training.planner.architecture import Architecture
from training.planner.layout import Shape
from training.planner.requests.config_files import read_config
from training.pretraining.config import PretrainConfig, next_multiple
from training.stages.recipe import build
from training.stages.recipe_folders import find_folder, stages_in
from training.stages.yaml_values import read_yaml


def split_subject(words: list[str]) -> tuple[Path | None, str]:
    """The folder or file that a command line names first, and the request in its other words."""
    if not words:
        return None, ""
    first, rest = words[0], words[1:]
    if rest[:1] == ["on"]:
        rest = rest[1:]
    path = with_shipped(first)
    named = path.exists() or first.endswith(".json") or os.sep in first
    if not named and stages_in(with_shipped(Path("recipes", first))):
        path, named = find_folder(first), True
    return (path, " ".join(rest)) if named else (None, " ".join(words))


def read_subject(path: Path) -> tuple[Architecture, Shape, bool]:
    """The architecture of a recipe folder or config.json, the shape of its run, and whether the run is a recipe's.

    Raises:
        UserError: neither of the two, or a recipe that is wrong.
    """
    if path.is_dir() and "pretrain" in stages_in(path):
        architecture, shape = read_recipe(path)
        return architecture, shape, True
    if path.is_dir() and stages_in(path) and not (path / "config.json").exists():
        raise UserError(f"{path}: has no pretrain.yaml; add one, or name a config.json or a size such as 1B")
    architecture = read_config(path)
    return architecture, Shape(sequence_length=min(architecture.max_position_embeddings, 8192)), False


def read_recipe(folder: Path) -> tuple[Architecture, Shape]:
    """The architecture and shape of the pretraining recipe in a folder.

    The vocabulary is that of the folder's tokenizer recipe, or of the tokenizer itself if that exists.

    Raises:
        UserError: a key is wrong, or a recipe with `depth`, whose sizes depend on the tokenizer.
    """
    file = folder / "pretrain.yaml"
    values = read_yaml(str(file))
    config = build(PretrainConfig, values, str(file))
    if config.depth is not None and "num_hidden_layers" not in config.model:
        raise UserError(
            f"{file}: 'depth' derives sizes from the trained tokenizer; write them out with "
            f"`scratch pretrain --config {file} --print_config` and plan that"
        )
    options: dict[str, Any] = {"max_position_embeddings": config.sequence_length} | config.model
    options.setdefault("vocab_size", next_multiple(_vocabulary(folder), config.pad_vocab_to_multiple_of))
    architecture = Architecture.from_preset(config.preset, **(options | {"name": folder.name}))
    shape = Shape(
        sequence_length=config.sequence_length,
        micro_batch=config.sequences_at_once(processes=1),
        global_batch=config.global_batch_size,
        steps=config.max_steps,
        bf16=config.bf16 is not False,
        optimizer=config.optimizer.name,
        checkpointing=config.activation_checkpointing,
        attention=config.attn_implementation or "sdpa",
    )
    return architecture, shape


def _vocabulary(folder: Path) -> int:
    """Tokens of the tokenizer that a recipe folder trains."""
    file = folder / "tokenizer.yaml"
    size = read_yaml(str(file)).get("vocab_size") if file.is_file() else None
    if not isinstance(size, int):
        raise UserError(f"{folder}: 'vocab_size' is in neither pretrain.yaml nor tokenizer.yaml; add model.vocab_size")
    return size


def with_options(shape: Shape, given: dict[str, Any]) -> Shape:
    """A shape with the options of the command line that are not None."""
    return replace(shape, **{name: value for name, value in given.items() if value is not None})
