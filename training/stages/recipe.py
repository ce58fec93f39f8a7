"""Recipes: the options of a command as a dataclass, built from values with every key and type checked.

Every option of a command is a field of its dataclass. The same field is the YAML key, the `--key value` flag and the
line in `--help`:

    @dataclass
    class PlotConfig:
        runs: list[str] = positional("run folders", many=True, metavar="RUN")    # scratch plot RUN RUN
        output: PathText = required("image file to write")                       # --output TEXT, or a key of a recipe
        steps: int = option(10, "training steps", at_least=1, group="Length")    # bounds: checked and printed
        private: bool = option(False, "hide it from others")                     # --private, or --private false
        system: str | None = option(None, "system prompt")                       # --system 'a: b' # text stays as it is
        compare: list[str] = option(list, "models", several=True)                # --compare A B
        optimizer: OptimizerConfig = option(OptimizerConfig, "Optimizer")        # --optimizer.name; a section of --help

    config = parse(PlotConfig, arguments, __doc__)

Nested dataclasses are nested mappings in YAML and dotted flags on the command line. An unknown key or a wrong type is a
`UserError` that names the nearest key. `parse`, in `training.stages.flags`, reads the recipe file and the flags. It
also answers `--help` and `--print_config` (see `training.stages.help`). A command without a recipe passes
`recipe=False`. Flags may be written with dashes: `--max-steps`. A flag of a key that takes text is taken as written;
all others are read as YAML. `PathText` is text that names a file or folder.
"""

import dataclasses
import errno
import math
import operator
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NewType

from training.common.errors import UserError, nearest

PathText = NewType("PathText", str)  # names a file or folder, or may do so: `build` expands `~`

# The order in which `scratch run` runs the recipes of a folder, and in which stages suggest the next command.
STAGES = (
    *("tokenizer", "prepare", "pretrain", "sft", "reward", "dpo", "kto", "orpo", "grpo", "rloo"),
    *("classify", "evaluate", "export"),
)


# Bounds of a number: their words in `--help` and errors, and the comparison that checks them.
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "at_least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "at_most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def option(default: Any, help: str, *, group: str = "", several: bool = False, **bounds: float) -> Any:
    """A dataclass field with its line of `--help`.

    Args:
        default: a `list`, `dict` or dataclass type means a new one each time.
        help: one line that names the thing and its unit. For a nested dataclass, the heading of its section.
        group: heading of `--help` under which the option is listed.
        several: the flag takes all words up to the next flag, each as written.
        bounds: of a number, `at_least`, `above`, `at_most`, `below`; `build` checks them and `--help` prints them. A
            value of None is always allowed.
    """
    metadata = {"help": help, "group": group, "several": several, "bounds": bounds}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, *, group: str = "", several: bool = False, **bounds: float) -> Any:
    """A dataclass field that the recipe or the command line must give; see `option`."""
    return option(dataclasses.MISSING, help, group=group, several=several, **bounds)


def positional(help: str, default: Any = dataclasses.MISSING, *, many: bool = False, metavar: str = "") -> Any:
    """A dataclass field that the command line gives without a flag, as written: `scratch push FOLDER NAME`.

    Args:
        default: makes it optional.
        many: takes all remaining words; the field is a list. The last positional field may be one.
        metavar: its name in `--help`, such as RUN.
    """
    field = option(default, help)
    extra = {"positional": True, "many": many, "metavar": metavar}
    return dataclasses.field(
        default=field.default, default_factory=field.default_factory, metadata={**field.metadata, **extra}
    )


def is_required(field: dataclasses.Field) -> bool:
    """Whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def describe_bounds(bounds: dict[str, float]) -> str:
    """Bounds in words, such as `at least 0, below 1`."""
    return ", ".join(f"{_BOUNDS[name][0]} {limit:,}" for name, limit in bounds.items())


def check_bounds(value: Any, bounds: dict[str, float], where: str, key: str) -> None:
    """Check a number against the bounds of an option, see `option`. Raises UserError: names the key and its bounds."""
    if value is None or not bounds:
        return
    finite = math.isfinite(value)
    if not finite or not all(_BOUNDS[name][1](value, limit) for name, limit in bounds.items()):
        raise UserError(f"{where}: '{key}' must be {describe_bounds(bounds)}, not {value}")


def build(cls: type, values: dict[str, Any], where: str, prefix: str = "") -> Any:
    """A dataclass from a mapping, every key and type checked.

    Args:
        where: what to call the source of the values in an error, such as the recipe's file.
        prefix: dotted path of `values` inside the recipe, for the same purpose.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: '{prefix.rstrip('.')}' takes a mapping of keys, not {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            raise UserError(f"{where}: unknown key '{prefix}{key}'; {nearest(str(key), fields)}")
    for name, field in fields.items():
        if is_required(field) and name not in values:
            raise UserError(f"{where}: '{prefix}{name}' is missing ({field.metadata.get('help', name)})")
    values = {key: _convert(value, hints[key], where, prefix + key) for key, value in values.items()}
    for key, value in values.items():
        check_bounds(value, fields[key].metadata.get("bounds", {}), where, prefix + key)
    try:
        return cls(**values)
    except ValueError as error:  # raised by the dataclass's own __post_init__
        raise UserError(f"{where}: {error}") from None


def _convert(value: Any, hint: Any, where: str, key: str) -> Any:
    """`value` as the annotated type. YAML reads `1` as an int: it is fine for a float, and so is a number in quotes."""
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, prefix=key + ".")
    if hint is PathText:
        path = _convert(value, str, where, key)
        if "\0" in path:
            raise UserError(f"{where}: '{key}': {path!r} contains a NUL character, which no path has; remove it")
        return local_path(path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        choices = [choice for choice in arguments if choice is not type(None)]
        if len(choices) == 1:
            return _convert(value, choices[0], where, key)
        for choice in choices[:-1]:
            try:
                return _convert(value, choice, where, key)
            except UserError:
                continue
        try:
            return _convert(value, choices[-1], where, key)
        except UserError:
            kinds = [typing.get_origin(choice) or choice for choice in choices]
            if not set(kinds) <= _TYPE_NAMES.keys():
                raise
            names = " or ".join(_TYPE_NAMES[kind] for kind in kinds)
            raise UserError(f"{where}: '{key}' takes {names}, not {value!r}") from None
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where}: '{key}' must be one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise UserError(f"{where}: '{key}' takes a list, not {value!r}")
        return [_convert(item, arguments[0], where, key) for item in value]
    if origin is dict and isinstance(value, dict):
        names, items = arguments
        return {
            local_path(str(name)) if names is PathText else name: _convert(item, items, where, f"{key}.{name}")
            for name, item in value.items()
        }
    if hint is Any:
        return value
    kind = origin or hint
    if kind is str and isinstance(value, str):
        _check_characters(value, where, key)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise UserError(f"{where}: '{key}' takes {_TYPE_NAMES.get(kind, kind.__name__)}, not {value!r}")
    return value


def _check_characters(text: str, where: str, key: str) -> None:
    """Reject what no file or tokenizer takes: a byte of the command line that is not UTF-8, half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: '{key}' is not UTF-8 text: {text!r}; write or rename it in UTF-8") from None


def check_scalar(value: Any, hint: Any, where: str, key: str) -> Any:
    """Convert `value` where the annotation is a number, text, a truth value or None; leave richer annotations alone."""
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if set(choices) <= {int, float, bool, str, type(None)}:
        return _convert(value, hint, where, key)
    return value


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    PathText: "text",
    dict: "a mapping",
}


def local_path(text: str) -> str:
    """The text of a path with `~` expanded and, if it exists, without parts that mean nothing: `./a//b/` is `a/b`.

    Text that is not an existing path may be a pattern, an address or a name on the Hub, and is not simplified.

    Raises:
        UserError: no file can have that name.
    """
    path = os.path.expanduser(text)
    try:
        os.stat(path)
    except ValueError:  # a NUL, or half of a surrogate pair
        raise UserError(f"{text!r:.80} cannot be the name of a file; correct its characters") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{text:.60}... cannot be the name of a file; it is too long") from None
        return path
    return Path(path).as_posix()
