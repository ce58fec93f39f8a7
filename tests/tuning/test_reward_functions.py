"""Reward functions: what each gives, and what is reported of one that fails."""

import asyncio
import sys

import pytest

from training.common.errors import UserError
from training.machine import resources
from training.tuning import reward_functions as rewards
from training.tuning.dataset_formats import NUMBER
from training.tuning.reward_functions import REWARDS, find_rewards, last_number

QUESTION = [{"role": "user", "content": "Write double."}]


def answer(words: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": words}]


def reward(name: str, words: str, prompt=QUESTION, **columns: object) -> float:
    completion = words if isinstance(prompt, str) else answer(words)
    columns = {key: [value] for key, value in columns.items()}
    (given,) = REWARDS[name](prompts=[prompt], completions=[completion], completion_ids=[[1]], **columns)
    return given


@pytest.mark.parametrize(
    "words, given",
    [
        ("def double(x):\n    return 2 * x", 1),
        ("Here you are:\n\n```python\nx = 1\n```\nDone.", 1),
        ("Here you are:\n\n```python\nx = = 1\n```", 0),
        ("Here you are:", 0),
        ("", 0),
        ("# nothing but words", 0),
        ("x = '\0'", 0),
        ("(" * 5000, 0),
        ("-" * 100_000 + "1", 0),
        ("if x is 1: pass", 1),
    ],
)
def test_parses(words, given, recwarn):
    assert reward("parses", words) == given
    assert not recwarn


def test_a_prompt_of_text_is_part_of_the_program():
    assert reward("parses", "    return 2 * x", prompt="def double(x):\n") == 1
    assert reward("parses", "return 2 * x", prompt="def double(x):\n") == 0


PYTHON = "def double(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "words",
    [
        f"Install it:\n```bash\npip install double\n```\nthen\n```python\n{PYTHON}```\nDone.",
        f"```json\n{{}}\n```\n\n~~~ py\n{PYTHON}~~~",
        f"```Python title=double.py\n{PYTHON}```\n```\nsecond\n```",
        f"```\n{PYTHON}```",
        f"Here:\n```python\n{PYTHON}",  # cut off by max_completion_length
        f"````python\n{PYTHON}````\n```\nsecond\n```",
        "1. So:\n\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n2. Done.",
        f"Not ```this``` one.\r\n```python\r\n{PYTHON}```\r\n",
    ],
)
def test_the_first_fenced_block_of_python(words):
    assert rewards.program(QUESTION, answer(words)).strip() == PYTHON.strip()


def test_fences_that_are_part_of_a_program():
    quoting = 'def usage():\n    """\n    ```\n    double(2)\n    ```\n    """\n'
    assert rewards.program(QUESTION, answer(f"````\n{quoting}````")) == quoting
    assert rewards.program(QUESTION, answer(f"```python\n{quoting}```")) == quoting


@pytest.mark.parametrize(
    "words, given",
    [
        (f"Here:\n```python\n{PYTHON}```", 1),
        ("async def double(x):\n    return 2 * x", 1),
        ("def halve(x):\n    def double(x):\n        return 2 * x", 0),  # not at top level
        ("class double:\n    pass", 0),
        ("double = len", 0),
        ("def double(x) return", 0),
    ],
)
def test_defines(words, given):
    assert REWARDS["defines"](prompts=[QUESTION], completions=[answer(words)], name=["double"]) == [given]


EXAMPLES = (
    ">>> double(2)\n4\n>>> double('a')\n'aa'\n>>> double(None)\nTraceback (most recent call last):\nTypeError: no"
)


@pytest.mark.parametrize(
    "words, given",
    [
        ("```python\ndef double(x):\n    if x is None:\n        raise TypeError('no')\n    return 2 * x\n```", 1),
        ("def double(x):\n    return 2 * x", 0),  # another message
        ("def double(x):\n    return 4", 0),
        ("def halve(x):\n    return x / 2", 0),
        ("def double(x):\n    while True: pass", 0),
        ("not Python", 0),
        # what one process could not stop
        ("import os\ndef double(x):\n    os._exit(0)", 0),
        ("class Right:\n    def __repr__(self):\n        return '4'\ndef double(x):\n    return Right()", 0),
        ("import doctest\ndoctest.DocTestRunner.run = lambda *_, **__: doctest.TestResults(0, 1)\ndouble = len", 0),
    ],
)
def test_doctest(words, given):
    assert reward("doctest", words, tests=EXAMPLES) == given


@pytest.mark.parametrize("processes, workers", [(None, 4), (2, 2), (3, 1), (8, 1)])
def test_processes_of_a_machine_share_its_cores(monkeypatch, processes, workers):
    asked = []
    monkeypatch.setattr(rewards, "run_all", lambda programs, count, *_: asked.append(count) or [])
    monkeypatch.setattr(resources, "available_cores", lambda: 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    REWARDS["doctest"](prompts=[], completions=[], tests=[])
    assert asked == [workers]


def test_doctest_without_examples():
    with pytest.raises(ValueError, match="'tests' holds no example"):
        reward("doctest", "x = 1", tests="assert double(2) == 4")


@pytest.mark.parametrize(
    "words, right, given",
    [
        ("5 + 7 = 12", 12, 1),
        ("5 + 7 = 12, I think.", "12", 1),
        ("12 or 13", 12, 0),
        ("It is -734.", " -734", 1),
        ("It is 734.", -734, 0),
        ("1,234.50 in all", 1234.5, 1),
        ("12.0", "so 5 + 7 = 12\n#### 12", 1),
        ("x12", 12, 0),
        ("twelve", 12, 0),
        ("", 12, 0),
        ("1,2", 2, 1),
        ("100000000000000000000", 1e20, 1),
        (".5 of it", 0.5, 1),
        ("-.5", -0.5, 1),
        ("x=1e5", 100_000, 1),
        ("1.5E-7", 1.5e-7, 1),
        ("0.0000001", 1e-7, 1),
        ("0", 1e-7, 0),
        ("It is \u22127.", -7, 1),
        ("7", "\u22127", 0),
        ("12 eggs, 3e", 3, 1),
        ("1e99999999999999999999", 12, 0),
        ("Section 1.2.5", 1.2, 1),
    ],
)
def test_number(words, right, given):
    assert reward("number", words, answer=right) == given


def test_number_without_a_right_one():
    with pytest.raises(ValueError, match="'answer' holds no number: 'twelve'"):
        reward("number", "12", answer="twelve")
    assert last_number("no") is None


def test_format():
    assert reward("format", " 12\n", pattern=r"-?\d+") == 1
    assert reward("format", "12 apples", pattern=r"-?\d+") == 0
    assert reward("format", "<think>\na\n</think> 3", pattern="<think>.*</think> .+") == 1


# -- named in a recipe ---------------------------------------------------------------------------------------------


def fails(completions, **_):
    return [1 / 0 if words == "bad" else 1.0 for words in completions]


def no_number(completions, **_):
    return [float("nan") if words == "bad" else None for words in completions]


def one_short(completions, **_):
    return [1.0]


def fails_together(completions, **_):
    return [1.0] if len(completions) == 1 else {}["all"]


async def later(completions, **_):
    return [float("inf") if words == "bad" else 0.5 for words in completions]


def call(name: str, completions: list[str]):
    (function,) = find_rewards([f"{__name__}.{name}"], ["prompt"], "recipe")
    assert function.__name__ == name  # TRL logs it so
    records = list(range(11, 11 + len(completions)))
    given = {"prompts": ["p"] * len(completions), "completions": completions, NUMBER: records, "log_metric": print}
    return function(**given)


@pytest.mark.parametrize(
    "name, message",
    [
        ("fails", "failed on record 12 of the data, completion 'bad' (ZeroDivisionError: division by zero)"),
        ("no_number", "gave nan on record 12 of the data, completion 'bad'; a reward must be finite"),
        ("one_short", "gave 1 rewards for 2 completions"),
        ("fails_together", "failed (KeyError: 'all')"),
    ],
)
def test_a_reward_that_fails_is_told_in_a_line(name, message):
    with pytest.raises(UserError) as told:
        call(name, ["good", "bad"])
    assert str(told.value) == f"'reward_funcs': {__name__}.{name} {message}"


def test_a_reward_that_waits():
    assert asyncio.run(call("later", ["good"])) == [0.5]
    with pytest.raises(UserError, match="later gave inf on record 12"):
        asyncio.run(call("later", ["good", "bad"]))


def test_what_is_not_judged_is_left_so():
    assert call("no_number", ["good"]) == [None]


@pytest.mark.parametrize(
    "names, message",
    [
        (["numbers"], "'reward_funcs': no reward 'numbers'; did you mean 'number'?"),
        ("number", "'reward_funcs' takes a list of names, not 'number'"),
        (["no.such.thing"], "'reward_funcs': no.such.thing cannot be imported"),
        (["number"], "'reward_funcs': number needs the column answer; 'datasets' have prompt, tests"),
        (["accuracy_reward"], "'reward_funcs': accuracy_reward needs the column solution"),
        (["math.pi"], "'reward_funcs': math.pi is not a reward function"),
        (["os.path"], "'reward_funcs': os.path is not a reward function"),
        (["builtins.dict"], "'reward_funcs': builtins.dict is not a reward function"),
        (["broken.reward"], "'reward_funcs': broken.reward cannot be imported (SyntaxError: "),
        (["stops.reward"], "'reward_funcs': stops.reward cannot be imported (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_name_that_cannot_be_used(tmp_path, monkeypatch, names, message):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text("def reward(:")
    (tmp_path / "stops.py").write_text("1 / 0")
    with pytest.raises(UserError) as told:
        find_rewards(names, ["prompt", "tests", NUMBER], "recipe")
    assert str(told.value).startswith(f"recipe: {message}") and NUMBER not in str(told.value)


def test_a_reward_in_the_folder_of_the_recipe(tmp_path, monkeypatch):
    """A console script has not the current folder on its path, as `python -m` has; `trl grpo` puts it there."""
    (tmp_path / "folder_of_mine").mkdir()
    (tmp_path / "folder_of_mine" / "short.py").write_text("def short(completions, **_):\n    return [1.0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    (found,) = find_rewards(["folder_of_mine.short.short"], ["prompt"], "recipe")
    assert found(prompts=[""], completions=[""]) == [1.0]


def test_names_of_ours_and_of_trl():
    found = find_rewards([*REWARDS, "think_format_reward"], ["prompt", "name", "tests", "answer", "pattern"], "recipe")
    assert [function.__name__ for function in found] == [*REWARDS, "think_format_reward"]


def test_our_names_are_those_that_the_stock_program_imports():
    """`trl grpo` imports what stands before the last dot, and takes what stands behind it from there."""
    import importlib

    for name, function in REWARDS.items():
        assert getattr(importlib.import_module("training.tuning.reward_functions"), name) is function
