"""Help pages and commented recipes: types, bounds, defaults, headings, and a printed recipe that reads back."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest
from messages import refused

from training.stages.flags import parse
from training.stages.help import commented_yaml, describe, recipe_yaml, type_name
from training.stages.recipe import build, option, positional, required
from training.stages.yaml_values import read_yaml


@dataclass
class Inner:
    """Where it lies."""

    path: str = option("here", "place")
    rate: float = option(0.5, "speed in m/s", above=0)


@dataclass
class Each:
    weight: float = required("weight of the source")


@dataclass
class Config:
    output_dir: str = required("folder for the output")
    steps: int = option(10, "training steps", at_least=1, group="Length")
    fast: bool | None = option(None, "whether to hurry; by default if the machine can")
    show: bool = option(False, "print more")
    keep: bool = option(True, "keep the files")
    kind: Literal["bpe", "character"] = option("bpe", "kind of token")
    prompts: list[str] = option(list, "beginnings")
    trackers: list[Literal["a", "b"]] = option(list, "trackers")
    dials: dict = option(dict, "anything")
    note: str | None = option(None, "remark")
    inner: Inner = option(Inner, "")
    sources: dict[str, Each] = option(dict, "texts")
    seed: int = option(0, "seed of the draws", group="Reproducibility")


GIVEN = {
    "output_dir": "no",
    "prompts": ["1e-5", "a: b", "null", "x\ny"],
    "dials": {"a": 1e-5, "0.8": {"b": None}},
    "note": "12",
    "sources": {"web": {"weight": 2}},
    "inner": {"rate": float("1e300")},
}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")


def test_every_option_has_its_type_bounds_and_default():
    lines = [" ".join(line.split()) for line in describe(Config).splitlines()]
    for line in (
        "--output_dir TEXT folder for the output (required)",
        "--steps INT training steps (at least 1, default 10)",
        "--fast true|false whether to hurry; by default if the machine can",
        "--show print more",
        "--keep true|false keep the files (default true)",
        "--kind bpe|character kind of token (default bpe)",
        "--prompts [TEXT, ...] beginnings",
        "--trackers [a|b, ...] trackers",
        "--dials MAPPING anything",
        "--note TEXT remark",
        "--inner.rate FLOAT speed in m/s (above 0, default 0.5)",
        "--sources.NAME.weight FLOAT weight of the source (required)",
        "--config FILE recipe: the options as YAML, a key for each flag without its dashes",
    ):
        assert line in lines
    assert not any(line.startswith("--inner ") for line in lines)
    assert max(map(len, describe(Config).splitlines())) <= 110


def test_headings_are_groups_and_nested_dataclasses():
    headings = [line for line in describe(Config).splitlines() if line and not line.startswith(" ")]
    assert headings == [
        "Options",
        "Length",
        "Reproducibility",
        "Where it lies.",
        "Each of 'sources', by its NAME",
        "Recipe",
    ]


def test_positional_arguments_and_flags_of_a_command():
    @dataclass
    class Command:
        runs: list[str] = positional("run folders", many=True, metavar="RUN")
        compare: list[str] = option(list, "models", several=True)

    page = describe(Command, recipe=False)
    assert page.startswith("Arguments\n  RUN ...  ") and "run folders (required)" in page
    assert "--compare TEXT ..." in page and "--config" not in page


@pytest.mark.parametrize(
    "hint, name",
    [(int | None, "INT"), (dict | str, "MAPPING|TEXT"), (dict[str, Inner], "MAPPING"), (Inner | None, "MAPPING")],
)
def test_types(hint, name):
    assert type_name(hint) == name


def test_parse_answers_help(capsys):
    for flag in ("--help", "-h"):
        with pytest.raises(SystemExit) as stop:
            parse(Config, [flag], "About.")
        assert stop.value.code == 0 and capsys.readouterr().out.startswith("About.\n\nOptions\n")


def test_a_printed_recipe_reads_back(tmp_path, capsys):
    expected = build(Config, GIVEN, "test")
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_yaml(Config, GIVEN, "test"))
    assert build(Config, read_yaml(file), "file") == expected
    with pytest.raises(SystemExit) as stop:
        parse(Config, ["--config", str(file), "--print_config", "--steps", "7"], "")
    assert stop.value.code == 0
    file.write_text(capsys.readouterr().out)
    assert build(Config, read_yaml(file), "file") == dataclasses.replace(expected, steps=7)


def test_a_printed_recipe_has_the_help_of_each_key():
    text = recipe_yaml(Config, GIVEN, "test")
    assert "# training steps (INT, at least 1)\nsteps: 10\n" in text
    assert "# --- Reproducibility ---" in text and "inner:\n  # place (TEXT)\n  path: here\n" in text


def test_a_recipe_may_be_printed_before_its_required_keys_are_known(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(commented_yaml(Config, {}))
    assert "# output_dir:  (required)\n" in file.read_text() and recipe_yaml(Config, {}, "test") == file.read_text()
    with refused("output_dir", "is missing"):
        build(Config, read_yaml(file), "file")


def test_values_are_derived_before_they_are_printed():
    text = recipe_yaml(Config, GIVEN, "w", lambda config, values, where: dataclasses.replace(config, steps=len(values)))
    assert f"steps: {len(GIVEN)}\n" in text


def test_a_wrong_recipe_is_not_printed():
    with refused("steps", "at least 1"):
        recipe_yaml(Config, {**GIVEN, "steps": 0}, "test")
