"""Help pages and commented recipes, printed from the dataclass that defines the options of a command."""

import dataclasses
import shlex
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml

from training.stages.recipe import build, describe_bounds, is_required
from training.stages.yaml_values import read_value

WIDTH = 110  # maximum characters per line
COLUMN = 34  # where the help of an option begins
_TYPES = {int: "INT", float: "FLOAT", str: "TEXT", bool: "true|false", dict: "MAPPING", list: "LIST"}
_OPTIONS = "Options"  # heading of the fields without a group


def command_line(*words: object) -> str:
    """A command of ours as a shell takes it: paths with spaces are quoted."""
    return shlex.join(["scratch", *map(str, words)])


class Line(NamedTuple):
    """One option: the flag with its type, and its help."""

    flag: str
    help: str


RECIPE_LINES = [
    Line("--config FILE", "recipe: the options as YAML, a key for each flag without its dashes"),
    Line("--print_config", "print the complete recipe as commented YAML, and do nothing else"),
    Line("--restart", "start over: discard an interrupted run, replace an edited output or one of another recipe"),
]


def describe(cls: type, recipe: bool = True) -> str:
    """The options of a configuration under their headings, with type, help, bounds and default.

    Args:
        recipe: whether the command is a stage, with the options of `RECIPE_LINES`.
    """
    sections: dict[str, list[Line]] = {}
    for heading, line in _lines(cls):
        sections.setdefault(heading, []).append(line)
    if recipe:
        sections["Recipe"] = RECIPE_LINES
    return "\n\n".join(format_section(heading, lines) for heading, lines in sections.items())


def format_section(heading: str, lines: list[Line]) -> str:
    """A heading, and below it each option with its help in a second column."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 20)).columns)
    column = COLUMN if width >= 2 * COLUMN else 8
    printed = textwrap.wrap(heading[:1].upper() + heading[1:], width)
    for flag, words in lines:
        wrapped = textwrap.wrap(words, width - column, break_on_hyphens=False) or [""]
        first = f"  {flag}"
        if len(first) + 2 <= column:
            printed.append(f"{first:<{column}}{wrapped[0]}".rstrip())
            wrapped = wrapped[1:]
        else:
            printed.append(first)
        printed += [" " * column + line for line in wrapped]
    return "\n".join(printed)


def _lines(cls: type, prefix: str = "", heading: str = _OPTIONS) -> Iterator[tuple[str, Line]]:
    """(heading, line) of each option; positional arguments first, nested dataclasses last."""
    hints = typing.get_type_hints(cls)
    fields = sorted(
        (field for field in dataclasses.fields(cls) if field.init),
        key=lambda field: not field.metadata.get("positional"),
    )
    nested = []
    for field in fields:
        hint, key = hints[field.name], prefix + field.name.removesuffix("_")
        if dataclasses.is_dataclass(hint):
            nested.append((hint, f"{key}.", title_of(field, hint)))
            continue
        if field.metadata.get("positional"):
            name = metavar_of(field) + (" ..." if field.metadata["many"] else "")
            yield "Arguments", Line(name, with_facts(field, hint))
            continue
        shown = type_name(hint)
        if field.metadata.get("several"):
            shown = f"{type_name(typing.get_args(hint)[0])} ..."
        elif hint is bool and field.default is False:
            shown = ""
        yield field.metadata.get("group") or heading, Line(f"--{key} {shown}".rstrip(), with_facts(field, hint))
        if typing.get_origin(hint) is dict and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            nested.append((typing.get_args(hint)[1], f"{key}.NAME.", f"Each of '{key}', by its NAME"))
    for hint, below, title in nested:
        yield from _lines(hint, below, title)


def title_of(field: dataclasses.Field, hint: type) -> str:
    """The heading of a nested dataclass: the help of its field, or the first line of its docstring."""
    return field.metadata.get("help") or (hint.__doc__ or field.name).strip().splitlines()[0]


def metavar_of(field: dataclasses.Field) -> str:
    """The name of a positional argument in `--help`, such as RUN."""
    return field.metadata.get("metavar") or field.name.upper()


def type_name(hint: Any) -> str:
    """Readable form of an annotation: `INT`, `true|false`, `wsd|cosine`, `[TEXT, ...]`, `MAPPING`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys(type_name(choice) for choice in arguments if choice is not type(None)))
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin is list and arguments:
        return f"[{type_name(arguments[0])}, ...]"
    return "MAPPING" if dataclasses.is_dataclass(hint) else _TYPES.get(origin or hint, "TEXT")


def with_facts(field: dataclasses.Field, hint: Any) -> str:
    """The help of a field, with its bounds and its default in parentheses."""
    words = field.metadata.get("help", "")
    facts = [describe_bounds(field.metadata.get("bounds", {}))]
    if is_required(field):
        facts.append("required")
    elif field.default not in (None, "", False, dataclasses.MISSING) or field.default == 0 and hint is not bool:
        facts.append(f"default {str(field.default).lower() if field.default is True else field.default}")
    facts = [fact for fact in facts if fact]
    return f"{words} ({', '.join(facts)})" if facts else words


class _Dumper(yaml.SafeDumper):
    """YAML dumper that quotes text which YAML 1.1 or a recipe would read as something else: `no`, `1e-5`."""

    def represent_text(self, text: str) -> yaml.Node:
        same = read_value(text) == text
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if same else "'")

    def represent_other(self, value: Any) -> yaml.Node:
        return self.represent_text(str(value))


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_multi_representer(object, _Dumper.represent_other)
_Dumper.add_multi_representer(str, _Dumper.represent_text)


def plain_yaml(values: dict[str, Any]) -> str:
    """A mapping as a recipe without comments, in its own order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH) if values else "{}\n"


def recipe_yaml(
    cls: type,
    values: dict[str, Any],
    where: str,
    resolve: Callable[[Any, dict[str, Any], str], Any] | None = None,
) -> str:
    """The complete recipe that `values` amount to, as YAML with the help of each key above it.

    Saved to a file it is a recipe that resolves to itself. A required key that is not given is a comment.

    Args:
        where: the source of the values, for errors.
        resolve: see `training.stages.flags.read_arguments`.

    Raises:
        UserError: an unknown key or a wrong value.
    """
    if _complete(cls, values):
        config = build(cls, values, where)
        values = dataclasses.asdict(resolve(config, values, where) if resolve else config)
    return commented_yaml(cls, values)


def _complete(cls: type, values: dict[str, Any]) -> bool:
    """Whether all required keys of the top level are given. `build` checks those of nested dataclasses."""
    return all(
        field.name in values for field in dataclasses.fields(cls) if field.init and is_required(field)
    )


def commented_yaml(cls: type, values: dict[str, Any], indent: str = "") -> str:
    """`values` of a dataclass as YAML, its defaults for the others, with the help of each key above it."""
    hints, parts, nested = typing.get_type_hints(cls), [], []
    groups: dict[str, list[dataclasses.Field]] = {}
    for field in dataclasses.fields(cls):
        if field.init:
            groups.setdefault(field.metadata.get("group", ""), []).append(field)
    for group, fields in groups.items():
        if group:
            parts.append(f"\n{indent}# --- {group} ---\n")
        for field in fields:
            hint = hints[field.name]
            if dataclasses.is_dataclass(hint):
                below = commented_yaml(hint, values.get(field.name) or {}, indent + "  ")
                title = _comment(title_of(field, hint), indent)
                nested.append(f"\n{title}{indent}{field.name}:\n{below}")
                continue
            words = field.metadata.get("help", "")
            parts.append(_comment(f"{words}{_range(hint, field)}", indent))
            value = values[field.name] if field.name in values else _default(field)
            if value is dataclasses.MISSING:
                parts.append(f"{indent}# {field.name}:  (required)\n")
            else:
                parts.append(textwrap.indent(plain_yaml({field.name: value}), indent))
    return "".join([*parts, *nested]).lstrip("\n")


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _range(hint: Any, field: dataclasses.Field) -> str:
    """Type and bounds of a key, for its comment."""
    bounds = describe_bounds(field.metadata.get("bounds", {}))
    return f" ({', '.join(filter(None, [type_name(hint), bounds]))})"


def _comment(words: str, indent: str) -> str:
    start = f"{indent}# "
    lines = textwrap.wrap(words, WIDTH - len(start), break_on_hyphens=False, break_long_words=False)
    return "".join(f"{start}{line}\n" for line in lines)
