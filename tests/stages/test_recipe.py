"""YAML and overrides to a dataclass: what is understood, and how the rest is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from messages import refused

from training.common.errors import UserError
from training.pretraining.config import PretrainConfig
from training.stages.flags import parse, recipe_file, split_overrides, split_restart
from training.stages.recipe import PathText, nearest, option, positional, required
from training.stages.yaml_values import read_yaml


@dataclass
class Inner:
    path: str = option("here", "where")
    rate: float = option(0.5, "how fast")


@dataclass
class Config:
    output_dir: str = required("the output")
    steps: int = option(10, "how many")
    fast: bool | None = option(None, "whether")
    limit: int | None = option(None, "how much")
    kind: Literal["bpe", "character"] = option("bpe", "which")
    prompts: list[str] = option(list, "beginnings")
    dials: dict = option(dict, "anything")
    paths: dict[str, PathText] = option(dict, "files by name")
    place: PathText | None = option(None, "a file")
    mixed: dict[PathText, Any] | PathText = option("", "a folder, or weights of several")
    inner: Inner = option(Inner, "more")

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"'steps' must be at least 1, not {self.steps}")


def read(*arguments: str, output: bool = True) -> Config:
    return parse(Config, [*(["--output_dir", "out"] if output else []), *arguments], "About.")


def recipe(tmp_path, text: str):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return file


def refusal(*arguments: str, output: bool = True) -> str:
    with pytest.raises(UserError) as error:
        read(*arguments, output=output)
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_defaults_are_fresh():
    first, second = read(), read()
    first.prompts.append("x")
    first.inner.path = "elsewhere"
    assert second == Config(output_dir="out") and second.inner.path == "here"


def test_a_recipe_with_overrides(tmp_path):
    file = recipe(tmp_path, "output_dir: out\nsteps: 5\ninner: {rate: 1e-3}\ndials: {a: {b: 1}}\n")
    config = parse(Config, ["--config", str(file), "--inner.path=there", "--dials.a.c", "2", "--fast", "true"], "")
    assert config == Config("out", 5, True, dials={"a": {"b": 1, "c": 2}}, inner=Inner("there", 1e-3))


@pytest.mark.parametrize(
    "flag, name, value",
    [
        ("--steps=7", "steps", 7),
        ("--steps=1_000", "steps", 1000),
        ("--fast=false", "fast", False),
        ("--fast=null", "fast", None),
        ("--limit=null", "limit", None),
        ("--limit=3", "limit", 3),
        ("--kind=character", "kind", "character"),
        ("--prompts=[a, 'b c']", "prompts", ["a", "b c"]),
        ("--kind=bpe", "kind", "bpe"),
        ("--dials={a: 1e-5, b: -2.5E+3, c: .5e1, d: 1.e-2}", "dials", {"a": 1e-5, "b": -2500.0, "c": 5.0, "d": 0.01}),
        ("--dials={a: e-5, b: 1e, c: 1-5}", "dials", {"a": "e-5", "b": "1e", "c": "1-5"}),
        ("--output_dir=no", "output_dir", "no"),  # a truth value in YAML 1.1
        ("--output_dir=--odd", "output_dir", "--odd"),
        ("--output_dir=exp #2", "output_dir", "exp #2"),
        ("--output_dir=1e3", "output_dir", "1e3"),
        ("--output_dir=null", "output_dir", "null"),
        ("--output_dir=[a", "output_dir", "[a"),
        ("--prompts=[2024, 1e3, no, '#', null]", "prompts", ["2024", "1e3", "no", "#", "null"]),
        ("--paths={a: 007, b: ~/x}", "paths", {"a": "007", "b": str(Path.home() / "x")}),
        ("--paths.a=2024", "paths", {"a": "2024"}),
        ("--place=a: b.txt", "place", "a: b.txt"),
        ("--place=null", "place", None),
        ("--mixed=2024", "mixed", "2024"),
        ("--mixed={~/a: 1}", "mixed", {str(Path.home() / "a"): 1}),
    ],
)
def test_values(flag, name, value):
    assert getattr(read(flag), name) == value


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("1", 1.0), ("-2.5", -2.5), ("4.0e-4", 4e-4)])
def test_floats(text, value):
    rate = read("--inner.rate", text).inner.rate
    assert rate == value and isinstance(rate, float)


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--step=5", "unknown key 'step'; did you mean 'steps'?"),
        ("--inner.pth=x", "unknown key 'inner.pth'; did you mean 'path'?"),
        ("--zzz=5", "unknown key 'zzz'; known: dials, fast, inner"),
        ("--steps=ten", "'steps' takes a whole number, not 'ten'"),
        ("--steps=1.5", "'steps' takes a whole number, not 1.5"),
        ("--steps=true", "'steps' takes a whole number, not True"),
        ("--steps=null", "'steps' takes a whole number, not None"),
        ("--limit=much", "'limit' takes a whole number, not 'much'"),
        ("--fast=2", "'fast' takes true or false, not 2"),
        ("--inner.rate=quick", "'inner.rate' takes a number, not 'quick'"),
        ("--inner.rate=true", "'inner.rate' takes a number, not True"),
        ("--kind=words", "'kind' must be one of bpe, character, not 'words'"),
        ("--prompts=a", "'prompts' takes a list, not 'a'"),
        ("--prompts={a: 1}", "'prompts' takes a list, not {'a': '1'}"),
        ("--steps={}", "'steps' takes a whole number, not {}"),
        ("--dials=3", "'dials' takes a mapping, not 3"),
        ("--inner=3", "'inner' takes a mapping of keys, not 3"),
        ("--steps.more=3", "'steps' takes a whole number, not {'more': 3}"),
        ("--steps=0", "'steps' must be at least 1, not 0"),
    ],
)
def test_refusals(flag, message):
    assert message in refusal(flag)


def test_command_line_mistakes():
    assert "unexpected argument 'steps'; options are written as --key value" in refusal("steps", "3")
    assert "'--steps' needs a value, as in --steps VALUE" in refusal("--steps")
    assert "'--steps' needs a value" in refusal("--steps", "--fast", "true")
    assert "'--kind' needs a value" in refusal("--fast", "--kind")
    assert refusal(output=False) == "command line: 'output_dir' is missing (the output)"
    assert split_overrides(["--a", "-1", "--b=x=y"]) == {"a": "-1", "b": "x=y"}


def test_files_that_are_no_recipes(tmp_path):
    def message(text: str) -> str:
        return refusal("--config", str(recipe(tmp_path, text)))

    where = tmp_path / "recipe.yaml"
    assert message("steps: 5\nfast: [1\nkind: bpe\n").startswith(f"{where}:3: not valid YAML")
    assert message("steps: 5\n\tfast: 1\n").startswith(f"{where}:2: not valid YAML")
    assert message("- a\n- b\n") == f"{where}: a recipe is a mapping of keys to values, not a list"
    assert message("stepz: 5\n") == f"{where}: unknown key 'stepz'; did you mean 'steps'?"
    assert "unknown key '1'" in message("1: 5\n")
    assert refusal("--config", str(tmp_path / "none.yaml")) == f"{tmp_path / 'none.yaml'}: no such recipe file"
    where.write_bytes(b"steps: \xff\xfe\n")
    assert "not a text file in UTF-8" in refusal("--config", str(where))
    where.write_bytes(b"PK\x03\x04\x00\x00")
    assert "not a text file in UTF-8" in refusal("--config", str(where))


def test_an_override_below_a_single_value(tmp_path):
    file = recipe(tmp_path, "output_dir: out\nsteps: 5\n")
    assert "--steps.more: 'steps' is a single value" in refusal("--config", str(file), "--steps.more", "1")


def test_an_empty_recipe_is_one_of_defaults(tmp_path):
    assert read_yaml(recipe(tmp_path, "# nothing\n")) == {}


def test_paths(tmp_path, monkeypatch):
    """`~` is the home in a recipe and in a flag, wherever text names a file; what exists is named in one way."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    file = recipe(tmp_path, "output_dir: out\nplace: ~/x\npaths: {a: ~/y, b: ./here//, c: ./owner/name, d: s3://a/b}\n")
    config = parse(Config, ["--config", str(file)], "")
    assert config.place == f"{tmp_path}/x"
    assert config.paths == {"a": f"{tmp_path}/y", "b": "here", "c": "./owner/name", "d": "s3://a/b"}


def test_restart_is_a_flag_and_not_a_key(tmp_path):
    assert split_restart(["--a", "b", "--restart", "--c"]) == (True, ["--a", "b", "--c"])
    assert split_restart(["--restart", "true", "--c"]) == (True, ["--c"])
    assert split_restart(["--c", "--restart=false"]) == (False, ["--c"])
    with refused("restart", "'yes'"):
        split_restart(["--restart", "yes"])
    assert read("--restart", "--steps", "3") == Config("out", 3)
    assert "unknown key 'restart'" in refusal("--config", str(recipe(tmp_path, "restart: true\n")))


def test_nearest():
    assert nearest("learning_rte", ["learning_rate", "seed"]) == "did you mean 'learning_rate'?"
    assert nearest("qqq", ["b", "a"]) == "known: a, b"


@pytest.mark.parametrize(
    "options, key, facts",
    [
        ({"seed": -1}, "seed", ["at least 0", "below 4,294,967,296", "-1"]),
        ({"seed": 2**32}, "seed", ["below 4,294,967,296", "not 4294967296"]),
        ({"max_grad_norm": -1}, "max_grad_norm", ["at least 0", "-1"]),
        ({"sample_tokens": 0}, "sample_tokens", ["at least 1", "0"]),
        ({"keep_best": 1, "save_steps": 250, "eval_steps": 100}, "keep_best", ["(250)", "'eval_steps' (100)"]),
        ({"optimizer.adam_beta1": 1}, "optimizer.adam_beta1", ["at least 0", "below 1", "1"]),
        ({"optimizer.decay_fraction": -0.4}, "optimizer.decay_fraction", ["at least 0", "at most 1", "-0.4"]),
        ({"optimizer.learning_rate": "-1"}, "optimizer.learning_rate", ["at least 0", "-1"]),
        ({"optimizer.learning_rate": ".inf"}, "optimizer.learning_rate", ["at least 0", "inf"]),
        ({"optimizer.warmup_steps": -3}, "optimizer.warmup_steps", ["at least 0", "-3"]),
    ],
)
def test_numbers_that_pretraining_cannot_use_are_refused(options, key, facts):
    given = {"output_dir": "o", "data": "d", "tokenizer": "t"} | options
    with refused(key, *facts):
        parse(PretrainConfig, [part for name, value in given.items() for part in (f"--{name}", str(value))], "")


@dataclass
class Bounded:
    steps: int = option(10, "steps", at_least=1)
    momentum: float | None = option(0.9, "decay", at_least=0, below=1)


def test_bounds_are_checked_where_the_option_is_defined():
    build = lambda *arguments: parse(Bounded, list(arguments), "About.")  # noqa: E731
    assert build("--steps", "1", "--momentum", "0").momentum == 0 and build("--momentum", "null").momentum is None
    for key, value, bound in (
        ("steps", "0", "at least 1"),
        ("momentum", "1", "below 1"),
        ("momentum", "-0.5", "at least 0"),
        ("momentum", ".nan", "nan"),
        ("momentum", ".inf", "inf"),
    ):
        with refused(key, bound):
            build(f"--{key}", value)


@dataclass
class Command:
    runs: list[str] = positional("run folders", many=True, metavar="RUN")
    repo: str | None = option(None, "name")
    private: bool = option(False, "whether to hide it")
    system: str | None = option(None, "system prompt")
    compare: list[str] = option(list, "models", several=True)


def command(*arguments: str) -> Command:
    return parse(Command, list(arguments), "About.", recipe=False)


def test_positional_arguments_and_flags_of_every_kind():
    assert command("a", "--private", "b", "--repo", "x") == Command(["a", "b"], "x", private=True)
    assert command("--private", "false", "1") == Command(["1"])
    assert command("--private=true", "a", "--repo=y") == Command(["a"], "y", private=True)
    assert command("a", "--system", "yes: [no") == Command(["a"], system="yes: [no")
    assert command("a", "--system=1e5").system == "1e5"
    assert command("a", "--compare", "1", "null", "--private").compare == ["1", "null"]
    assert command("a", "--compare=[b").compare == ["[b"]
    assert read("--fast", "--steps", "3") == Config("out", 3, True) == read("--steps", "3", "--fast")


@pytest.mark.parametrize(
    "arguments, facts",
    [
        ([], ["'runs' is missing", "run folders"]),
        (["a", "--compare", "--private"], ["'--compare' needs values", "--compare A B"]),
        (["a", "--privat"], ["'--privat' needs a value"]),
        (["a", "--privat", "true"], ["unknown key 'privat'", "did you mean 'private'?"]),
        (["a", "--config", "x.yaml"], ["unknown key 'config'"]),
        (["--private", "--repo", "1"], ["'runs' is missing"]),
    ],
)
def test_mistakes_on_a_command_line_are_one_line(arguments, facts):
    with refused(None, *facts):
        command(*arguments)


def test_a_key_that_is_a_word_of_python(capsys):
    @dataclass
    class Import:
        import_: list[str] = option(list, "files", several=True)

    assert parse(Import, ["--import", "a", "b"], "About.", recipe=False).import_ == ["a", "b"]
    with pytest.raises(SystemExit):
        parse(Import, ["--help"], "About.", recipe=False)
    assert "--import TEXT ..." in capsys.readouterr().out


def test_one_positional_argument_takes_one_word():
    @dataclass
    class One:
        folder: str = positional("folder")

    assert parse(One, ["x"], "").folder == "x"
    with refused("y", "unexpected argument"):
        parse(One, ["x", "y"], "")


def test_the_recipe_file_of_a_command_line():
    assert recipe_file(["--a", "--config", "x"]) == "x" == recipe_file(["--config=x", "--b"])
    assert recipe_file(["--a", "x"]) is None


@pytest.mark.parametrize("key", ["inner.path", "place", "output_dir"])
def test_bytes_that_are_not_utf_8(key):
    """As Python hands them over on the command line."""
    with refused(key, "not UTF-8"):
        read(f"--{key}=h\udce9llo")


def test_a_path_without_a_file_name(tmp_path):
    with refused("place", "NUL"):
        read("--config", str(recipe(tmp_path, 'place: "a\\0b"')))
    assert read("--place", "~nobodyhere/x").place == "~nobodyhere/x"
    with refused(None, "~nobodyhere/x: no such recipe file"):
        read("--config", "~nobodyhere/x")
