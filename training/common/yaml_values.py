"""YAML files and values, read with the truth values and numbers of YAML 1.2."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from training.common.errors import UserError
from training.common.packages import with_shipped


class _Loader(yaml.SafeLoader):
    """YAML loader with the truth values and numbers of YAML 1.2; in PyYAML's 1.1, `no` is false and `1e-5` is text."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    path = Path(os.path.expanduser(path))
    file = with_shipped(path)
    if not file.is_file():
        raise UserError(f"{path}: no such recipe file")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}:{error.problem_mark.line + 1}: not valid YAML ({error.problem})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path}: not a text file in UTF-8, so not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, not a {type(content).__name__}")
    return content


def read_texts(text: str) -> Any:
    """A list or mapping of the command line, read as YAML but with every item as the text that stands there."""
    try:
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        return text


def read_value(text: str) -> Any:
    """A value of the command line, read as YAML: `4`, `true`, `null` and `[a, b]` work. Text that is not YAML stays."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text
