"""The fingerprint of the documents of a recipe: changes when any of their inputs changes."""

import hashlib
import importlib.metadata
import os
import platform
import uuid
from collections.abc import Mapping
from pathlib import Path

from training.common.errors import UserError
from training.corpus.curation.config import DataConfig
from training.corpus.dedup.evaluation_items import task_files
from training.corpus.sources import PYTHON, STDIN, SourceConfig
from training.corpus.sources.files import find_files, is_local
from training.stages.provenance import digest


def corpus_digest(config: DataConfig) -> str:
    """A hash of all inputs: installed packages and versions, contents of files or ids of datasets, and the files that
    the steps read.

    Raises:
        UserError: no such file.
    """
    check_distinct({config.key_of(name): source for name, source in config.named_sources.items()})
    digests = [f"{name}:{source_digest(source, config.key_of(name))}" for name, source in config.named_sources.items()]
    for path in map(Path, config.decontamination.evaluation):
        digests += [digest(file, "data.decontamination.evaluation") for file in [*task_files(path), path]]
    rules = {config.rules_of(name).profanity for name in config.named_sources} - {None}
    digests += [digest(path, "rules.profanity") for path in sorted(rules)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def source_digest(config: SourceConfig, key: str = "data") -> str:
    """A hash of the input: the installed packages and versions, the contents of files, or the dataset's id.

    Standard input cannot be read twice, so its digest is always new.

    Args:
        key: recipe key of the source, for error messages.

    Raises:
        UserError: no such file.
    """
    if config.path == PYTHON:
        installed = {f"{item.metadata['Name']}=={item.version}" for item in importlib.metadata.distributions()}
        identity = [platform.python_version(), *sorted(installed)]
    elif config.path == STDIN:
        identity = [STDIN, uuid.uuid4().hex]
    elif is_local(config.path):
        files = find_files(config, key).files
        identity = [f"{file.path}:{digest(file.path, f'{key}.path')}" for file in files]
    else:
        identity = [config.path, str(config.subset), config.split]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()


def check_distinct(sources: Mapping[str, SourceConfig]) -> None:
    """Check that no file, dataset or standard input is read through two sources: its weight would count twice.

    Args:
        sources: by their keys in the recipe.

    Raises:
        UserError: it names both sources and what they share.
    """
    taken: dict[object, str] = {}
    for key, config in sources.items():
        if is_local(config.path):
            paths = [file.path for file in find_files(config, key).files]
            identities = {os.path.realpath(path): str(path) for path in paths}
        else:
            identities = {(config.path, config.subset, config.split): config.path}
        for identity, shown in identities.items():
            other = taken.setdefault(identity, key)
            if other != key:
                raise UserError(f"'{key}.path': {shown} is read by '{other}' already; remove it from one of the two")
