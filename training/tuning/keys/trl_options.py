"""Options of TRL's trainers, from a table in this folder: importing TRL to ask it takes seconds.

The table, trl_options.json, was made with one version of TRL and of transformers. With these versions installed it is
complete: help and checks of recipes use it alone. With others, TRL itself is asked; only fingerprints still use it.

After an upgrade, make it again: python -m training.tuning.keys.trl_options
"""

import dataclasses
import enum
import functools
import importlib.metadata
import json
import operator
import re
import types
import typing
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from training.common.errors import UserError
from training.stages.flags import apply_overrides, recipe_file, split_overrides, split_restart, takes_no_value
from training.stages.help import RECIPE_LINES, Line, format_section, plain_yaml, type_name
from training.stages.recipe import check_scalar, describe_bounds, local_path, nearest
from training.stages.yaml_values import read_yaml
from training.tuning.keys.rules import bounds_of, check_rules, is_rejected

TABLE = Path(__file__).with_suffix(".json")
PACKAGES = ("trl", "transformers")
# Stage: TRL's configuration of the trainer, and the other arguments of the stock program.
CONFIGURATIONS = {
    "sft": ("trl:SFTConfig", "trl:ScriptArguments"),
    "reward": ("trl:RewardConfig", "trl:ScriptArguments"),
    "dpo": ("trl:DPOConfig", "trl:ScriptArguments"),
    "kto": ("trl:KTOConfig", "trl:ScriptArguments"),
    "orpo": ("trl.experimental.orpo:ORPOConfig", "trl:ScriptArguments"),
    "grpo": ("trl:GRPOConfig", "trl.scripts.grpo:GRPOScriptArguments"),
    "rloo": ("trl:RLOOConfig", "trl.scripts.rloo:RLOOScriptArguments"),
}
# Keys that name a file or folder, in a recipe and in an entry of `datasets`.
PATHS = ("output_dir", "model_name_or_path", "reward_model_name_or_path", "chat_template_path", "dataset_name")
DATASET_PATHS = ("path", "data_files", "data_dir")
DATA, MODEL, TRAINER, TRAINING = "Data", "Model and adapter", "{} (TRL)", "Training (transformers)"
_ENUMERATION = re.compile(r"[a-z0-9_]+(\|[a-z0-9_]+)+")
_SCALARS = {"int": int, "float": float, "bool": bool, "str": str, "null": type(None)}


@dataclasses.dataclass(frozen=True)
class TrlOption:
    """One option of a stage.

    Attributes:
        section: heading of `--help`.
        types: names of scalar types, such as [int, null]; empty for richer annotations, which TRL alone checks.
        shown: the type as `--help` shows it.
        default: as JSON; None also for options without one.
    """

    name: str
    section: str
    types: list[str]
    shown: str
    default: Any
    help: str

    @property
    def hint(self) -> Any:
        """The annotation as a type, where it is made of scalars."""
        return functools.reduce(operator.or_, [_SCALARS[name] for name in self.types]) if self.types else Any

    @property
    def choices(self) -> list[str]:
        """The values of an enumeration; empty for other types."""
        return self.shown.split("|") if not self.types and _ENUMERATION.fullmatch(self.shown) else []


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def installed_versions() -> dict[str, str | None]:
    """The versions on which TRL's options depend; None for a package that is not installed."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def is_complete() -> bool:
    """Whether the table was made with the installed versions."""
    return _table()["versions"] == installed_versions()


def options_of(stage: str) -> dict[str, TrlOption]:
    """The options of a stage by name, from the table."""
    table = _table()
    entries = {name: table["options"][index] for name, index in table["stages"][stage].items()}
    return {name: TrlOption(name, *entry) for name, entry in entries.items()}


def defaults_of(stage: str) -> dict[str, Any]:
    """The default of each option of a stage, from the table."""
    return {name: option.default for name, option in options_of(stage).items()}


def _shown(stage: str) -> list[TrlOption]:
    """The options of a stage that are not rejected, in the order of help."""
    accepted = [option for option in options_of(stage).values() if not is_rejected(stage, option.name)]
    return sorted(accepted, key=lambda option: _order(option.section))


def describe(stage: str) -> str:
    """The options of a stage under their headings, for `--help`."""
    sections: dict[str, list[Line]] = {}
    for option in _shown(stage):
        facts = [describe_bounds(bounds_of(stage, option.name))]
        facts.append("" if option.default in (None, False, [], "") else f"default {_plain(option.default)}")
        shown = ", ".join(filter(None, facts))
        words = option.help.rstrip(".") + (f" ({shown})" if shown else "")
        sections.setdefault(option.section, []).append(Line(f"--{option.name} {option.shown}", words))
    return "\n\n".join(format_section(heading, lines) for heading, lines in sections.items())


def answer_questions(stage: str, arguments: list[str], usage: str) -> None:
    """Print and exit for `--help` and `--print_config`, if the table is complete; otherwise TRL has to be asked.

    Args:
        usage: the command's docstring.
    """
    if not is_complete():
        return
    if "--help" in arguments or "-h" in arguments:
        print(f"{usage.strip()}\n\n{describe(stage)}\n\n{format_section('Recipe', RECIPE_LINES)}")
        raise SystemExit(0)
    if "--print_config" in arguments:
        arguments = [argument for argument in arguments if argument != "--print_config"]
        print(recipe_yaml(stage, *read_values(stage, arguments)), end="")
        raise SystemExit(0)


def read_values(stage: str, arguments: list[str]) -> tuple[dict[str, Any], str]:
    """The keys of `--config FILE` and `--key value` of a command line, and the source of them for errors.

    Raises:
        UserError: not a recipe, an unknown key, or a wrong type.
    """
    path = recipe_file(arguments)
    _, arguments = split_restart(arguments)
    overrides = split_overrides(arguments, lambda key: takes_no_value(hint_of(stage, key)))
    overrides.pop("config", None)
    values = apply_overrides(read_yaml(path) if path else {}, overrides, lambda key: hint_of(stage, key))
    where = path or "command line"
    return (check_values(stage, values, where) if is_complete() else expand_paths(values)), where


def hint_of(stage: str, key: str) -> Any:
    """The annotation of a key, see `TrlOption.hint`; None for a key that is not in the table."""
    option = options_of(stage).get(key)
    return option.hint if option else None


def expand_paths(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe with every path as `local_path` writes it."""

    def expand(value: Any) -> Any:
        if isinstance(value, list):
            return [expand(item) for item in value]
        if isinstance(value, dict):
            return {key: expand(item) for key, item in value.items()}
        return local_path(value) if isinstance(value, str) else value

    def expand_in(values: Any, keys: tuple[str, ...]) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: expand(value) if key in keys else value for key, value in values.items()}

    values = expand_in(values, PATHS)
    if isinstance(values.get("datasets"), list):
        values["datasets"] = [expand_in(dataset, DATASET_PATHS) for dataset in values["datasets"]]
    return values


def check_values(stage: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values of a recipe, with numbers and truth values as TRL annotates them, and its paths expanded.

    Raises:
        UserError: a key that is not in the table, a wrong type, or a key or value that the rules reject.
    """
    options = options_of(stage)
    for key, value in values.items():
        if key not in options:
            raise UserError(f"{where}: unknown key '{key}'; {nearest(str(key), options)}")
        choices = options[key].choices
        if choices and isinstance(value, str) and value not in choices:
            raise UserError(f"{where}: '{key}': no '{value}'; {nearest(value, choices)}")
    values = expand_paths({key: check_scalar(value, options[key].hint, where, key) for key, value in values.items()})
    check_rules(stage, values, defaults_of(stage), where)
    return values


def check_recipe(stage: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values of a recipe before its stage runs, checked if the table is of the installed TRL.

    Raises:
        UserError: see `check_values` and `check_required`.
    """
    try:
        values = check_values(stage, values, where)
    except UserError:
        if is_complete():
            raise
        values = expand_paths(values)  # the installed TRL may know the key, which its stage checks
    check_required(values, where)
    return values


def check_required(values: dict[str, Any], where: str) -> None:
    """Reject a recipe without an output, a model or data.

    Args:
        values: see `read_values`.

    Raises:
        UserError: one of these keys is missing, or `datasets` is not a list of mappings.
    """
    for key in ("model_name_or_path", "output_dir"):
        if not values.get(key):
            raise UserError(f"{where}: '{key}' is missing")
    datasets = values.get("datasets") or []
    if not datasets and not values.get("dataset_name"):
        raise UserError(f"{where}: 'datasets' is missing (a list, each with a path such as json, and data_files)")
    if not isinstance(datasets, list):
        raise UserError(f"{where}: 'datasets' takes a list of mappings, not {datasets!r}")
    for dataset in datasets:
        if not isinstance(dataset, dict):
            raise UserError(f"{where}: an entry of 'datasets' is a mapping with a path, not {dataset!r}")


def recipe_yaml(stage: str, values: dict[str, Any], where: str) -> str:
    """A recipe with the help of each key; options that it leaves at their defaults are comments.

    Args:
        where: the source of the values.
    """
    lines, section = [f"# {stage}: {where}"], None
    for option in _shown(stage):
        if option.section != section:
            section = option.section
            lines.append(f"\n# --- {section} ---")
        lines.append(f"# {' '.join(option.help.split())} ({option.shown})")
        if option.name in values:
            lines.append(plain_yaml({option.name: values[option.name]}).rstrip("\n"))
        else:
            lines.append(f"# {option.name}: {_plain(option.default)}")
    return "\n".join(lines) + "\n"


def _order(section: str) -> int:
    return {DATA: 0, MODEL: 1, TRAINING: 3}.get(section, 2)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def collect() -> dict[str, Any]:
    """The table, from the installed TRL: versions; distinct options; and for each stage its options by their index."""
    import warnings

    from transformers import TrainingArguments

    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    entries: list[list[Any]] = []
    stages: dict[str, dict[str, int]] = {}
    for stage, (configuration, script) in CONFIGURATIONS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that ORPO is experimental
            trainer = resolve_name(configuration)
        own = TRAINER.format(configuration.rpartition(":")[2].replace("Config", "Trainer"))
        sections = {
            resolve_name(script): DATA,
            resolve_name("trl:DatasetMixtureConfig"): DATA,
            resolve_name("trl:ModelConfig"): MODEL,
            trainer: own,
        }
        stages[stage] = {}
        for cls, section in sections.items():
            hints = typing.get_type_hints(cls)
            for field in dataclasses.fields(cls):
                if not field.init:
                    continue
                heading = TRAINING if cls is trainer and field.name in inherited else section
                entry = [heading, *_facts(field, hints[field.name])]
                if entry not in entries:
                    entries.append(entry)
                stages[stage][field.name] = entries.index(entry)
    return {"versions": installed_versions(), "options": entries, "stages": stages}


def _facts(field: dataclasses.Field, hint: Any) -> tuple[list[str], str, Any, str]:
    """Scalar types, shown type, default and help of a field."""
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    names = {kind: name for name, kind in _SCALARS.items()}
    scalar = [names[choice] for choice in choices] if set(choices) <= names.keys() else []
    enums = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, enum.Enum)]
    shown = "|".join(str(member.value) for member in enums[0]) if enums else type_name(hint)
    default = field.default if field.default is not dataclasses.MISSING else None
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if isinstance(default, enum.Enum):
        default = default.value
    help_line = " ".join(field.metadata.get("help", "").split())
    return scalar, shown, default, help_line


if __name__ == "__main__":
    rows = json.dumps(collect()).replace("], [", "],\n [").replace('"stages"', '\n"stages"')
    TABLE.write_text(rows + "\n", encoding="utf-8")
    print(f"wrote {TABLE}")
