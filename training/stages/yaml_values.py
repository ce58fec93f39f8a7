"""YAML files and values, read with the truth values and numbers of YAML 1.2."""

import math
import os
import re
from pathlib import Path
from typing import Any

import yaml

from training.common.errors import UserError, one_line
from training.common.shipped import with_shipped

MOST_VALUES = 1_000_000  # of a text, each alias counted as what it stands for


class _Loader(yaml.SafeLoader):
    """YAML loader with the truth values and numbers of YAML 1.2; in PyYAML's 1.1, `no` is false and `1e-5` is text.

    Keys are text, as written: a source of the name 2024, or of the name null.
    """

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return node


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(text: str, loader: type = _Loader) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: not YAML; a value that cannot be made, such as the date 2024-13-01; brackets nested a thousand
            deep; or aliases that multiply to a value without end.
    """
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_VALUES:
            raise yaml.composer.ComposerError(problem="its aliases multiply", problem_mark=node.start_mark)
        return reader.construct_document(node)
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # of the types' own constructors
        mark = reader.get_mark()
        raise yaml.constructor.ConstructorError(problem=one_line(error), problem_mark=mark) from None
    except RecursionError:
        raise yaml.composer.ComposerError(problem="nested too deeply", problem_mark=reader.get_mark()) from None
    finally:
        reader.dispose()


def _count(node: yaml.Node, counted: dict[int, float]) -> float:
    """The number of values in a node; infinite for one that holds itself."""
    if id(node) not in counted:
        counted[id(node)] = math.inf  # while its parts are counted
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        counted[id(node)] = 1 + sum(_count(part, counted) for part in flat)
    return counted[id(node)]


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
        content = load_yaml(file.read_text(encoding="utf-8"))
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
        return load_yaml(text, yaml.BaseLoader)
    except yaml.YAMLError:
        return text


def read_value(text: str) -> Any:
    """A value of the command line, read as YAML: `4`, `true`, `null` and `[a, b]` work. Text that is not YAML stays."""
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return text
