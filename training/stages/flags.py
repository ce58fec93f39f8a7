"""Command lines: flags and a recipe file to a configuration, every flag read by the type of its key.

`parse` is what a command calls. See `training.stages.recipe` for the options and how they are written.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any

from training.common.errors import UserError
from training.stages.recipe import PathText, build
from training.stages.yaml_values import read_texts, read_value, read_yaml


def split_overrides(arguments: list[str], is_boolean: Callable[[str], bool] = lambda key: False) -> dict[str, str]:
    """`["--data.path", "a.txt", "--seed=1"]` to `{"data.path": "a.txt", "seed": "1"}`; values are still text.

    For command lines whose options belong to several dataclasses, or to none; see `read_flags` for those of one.

    Args:
        is_boolean: whether a key may be given without a value, which is then `true`.

    Raises:
        UserError: a word that is not a flag, or a flag without a value.
    """
    overrides, remaining = {}, list(arguments)
    while remaining:
        flag = remaining.pop(0)
        if not flag.startswith("--"):
            raise UserError(f"unexpected argument '{flag}'; options are written as --key value")
        key, equals, value = flag[2:].partition("=")
        if not equals:
            ends_here = not remaining or remaining[0].startswith("--")
            if ends_here and not is_boolean(key):
                raise UserError(f"'{flag}' needs a value, as in {flag} VALUE")
            value = "true" if ends_here else remaining.pop(0)
        overrides[key] = value
    return overrides


def split_restart(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether a stage's command line has `--restart`, and its other words.

    It is not a key of recipes, where it would discard the work of every later run.

    Raises:
        UserError: its value is neither true nor false.
    """
    restart, others, words = "false", [], list(arguments)
    while words:
        word = words.pop(0)
        flag, equals, restart_value = word.partition("=")
        if flag != "--restart":
            others.append(word)
        elif equals:
            restart = restart_value
        else:
            restart = words.pop(0) if words and not words[0].startswith("--") else "true"
    if restart not in ("true", "false"):
        raise UserError(f"'restart' takes true or false, not '{restart}'")
    return restart == "true", others


def has_flag(arguments: list[str], key: str) -> bool:
    """Whether a command line has `--key`, `--key value` or `--key=value`."""
    return any(argument == f"--{key}" or argument.startswith(f"--{key}=") for argument in arguments)


def recipe_file(arguments: list[str]) -> str | None:
    """The FILE of `--config FILE` in a command line."""
    for word, following in zip(arguments, [*arguments[1:], None], strict=False):
        if word == "--config":
            return following
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def find_field(cls: type, key: str) -> tuple[dataclasses.Field | None, Any]:
    """The field of a dotted key and its annotation; (None, None) if the dataclass has no such key."""
    name, _, rest = key.partition(".")
    field = next((field for field in dataclasses.fields(cls) if field.init and field.name == name), None)
    if field is None:
        return None, None
    hint = typing.get_type_hints(cls)[name]
    if not rest:
        return field, hint
    if typing.get_origin(hint) is dict:  # dict[str, Nested]: the next part of the key is a name that the user chose
        hint, (_, _, rest) = typing.get_args(hint)[1], rest.partition(".")
        if not rest:
            return field, hint
    return find_field(hint, rest) if rest and dataclasses.is_dataclass(hint) else (None, None)


def takes_no_value(hint: Any) -> bool:
    """Whether a flag with this annotation may be given without a value, for true."""
    return hint is bool or bool in typing.get_args(hint)


def read_words(text: str, hint: Any) -> Any:
    """The value of a flag: as written where its annotation takes text, otherwise read as YAML.

    Where the annotation also takes nothing, a list or the like, text that is `null` or a list is that. The items of a
    list of text, or of a mapping to text, are as written.
    """
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if text == "null" and type(None) in choices:
        return None
    texts = {str, PathText}
    if texts.isdisjoint(choices):
        plain = any(typing.get_args(choice)[-1:] in [(kind,) for kind in texts] for choice in choices)
        return read_texts(text) if plain else read_value(text)
    others = [typing.get_origin(choice) or choice for choice in choices if choice not in texts | {type(None)}]
    value = read_value(text) if others else text
    return value if isinstance(value, tuple(others)) else text


def read_flags(cls: type, arguments: list[str]) -> dict[str, Any]:
    """Values on a command line by dotted key, read by the types of `cls`: a bare `--flag` of a boolean is true.

    Raises:
        UserError: a flag without its value, or a word too many.
    """
    positionals = [field for field in dataclasses.fields(cls) if field.metadata.get("positional")]
    given: dict[str, Any] = {}
    loose, words = [], list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            loose.append(word)
            continue
        key, equals, text = word[2:].partition("=")
        spellings = (key, key.replace("-", "_"), f"{key}_")  # the last for a word of Python: `import_` is --import
        key = next((spelling for spelling in spellings if find_field(cls, spelling)[0]), key)
        field, hint = find_field(cls, key)
        metadata = field.metadata if field else {}
        ends_here = not words or words[0].startswith("--")
        if metadata.get("several"):
            given[key] = [text] if equals else []
            while not equals and words and not words[0].startswith("--"):
                given[key].append(words.pop(0))
            if not given[key]:
                raise UserError(f"'{word}' needs values, as in {word} A B")
            continue
        if not equals:
            alone = ends_here or positionals and words[0].lower() not in ("true", "false", "null")
            if alone and takes_no_value(hint):
                text = "true"
            elif ends_here:
                raise UserError(f"'{word}' needs a value, as in {word} VALUE")
            else:
                text = words.pop(0)
        given[key] = read_words(text, hint)
    for field in positionals:
        if loose:
            given[field.name], loose = (loose, []) if field.metadata["many"] else (loose[0], loose[1:])
    if loose:
        raise UserError(f"unexpected argument '{loose[0]}'; options are written as --key value")
    return given


def apply_overrides(
    values: dict[str, Any], overrides: dict[str, str], hint_of: Callable[[str], Any] = lambda key: None
) -> dict[str, Any]:
    """Set dotted keys in a nested mapping.

    Args:
        hint_of: the annotation of a key, by which its text is read, see `read_words`; None for an unknown key.
    """
    return set_keys(values, {key: read_words(text, hint_of(key)) for key, text in overrides.items()})


def set_keys(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Set dotted keys in a nested mapping."""
    for key, value in given.items():
        *parents, leaf = key.split(".")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise UserError(f"--{key}: '{parent}' is a single value in the recipe, not a mapping")
        target[leaf] = value
    return values


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"hidden_size": 4}}` to `{"model.hidden_size": 4}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def read_arguments(
    cls: type,
    arguments: list[str],
    usage: str,
    *,
    recipe: bool = True,
    resolve: Callable[[Any, dict[str, Any], str], Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Values of a command line, from `--config FILE` and flags: `values` and `where` for `build`.

    Prints and exits for `--help` and `--print_config`.

    Args:
        cls: of the configuration.
        usage: the command's docstring, shown above its options by `--help`.
        recipe: whether the command is a stage: it takes `--config`, `--print_config` and `--restart`.
        resolve: given (configuration, values, where), the configuration with derived values, for `--print_config`.
    """
    if has_flag(arguments, "help") or "-h" in arguments:
        from training.stages.help import describe

        print(f"{usage.strip()}\n\n{describe(cls, recipe)}")
        raise SystemExit(0)
    if recipe:
        _, arguments = split_restart(arguments)
    prints = recipe and "--print_config" in arguments
    given = read_flags(cls, [argument for argument in arguments if not (prints and argument == "--print_config")])
    path = given.pop("config", None) if recipe else None
    where = str(path) if path else "command line"
    values = set_keys(read_yaml(where) if path else {}, given)
    if prints:
        from training.stages.help import recipe_yaml

        print(recipe_yaml(cls, values, where, resolve), end="")
        raise SystemExit(0)
    return values, where


def parse(cls: type, arguments: list[str], usage: str, *, recipe: bool = True) -> Any:
    """A command's configuration, a `cls`, from its command line (see `read_arguments`)."""
    values, where = read_arguments(cls, arguments, usage, recipe=recipe)
    return build(cls, values, where)
