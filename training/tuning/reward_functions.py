"""Reward functions for GRPO, RLOO and evaluation: verifiable rewards by name (`number`) or import path in a recipe.

TRL passes each function `prompts`, `completions` and every column of the data by its name, and expects a number for
each completion (None: not scored). The functions here return 1 or 0. `trl grpo` finds them by import path, such as
`training.tuning.reward_functions.number`.
"""

import ast
import doctest as standard_doctest
import functools
import inspect
import math
import os
import re
import sys
import warnings
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pkgutil import resolve_name
from typing import Any

from training.common.errors import UserError, one_line
from training.machine.resources import cores_per_process
from training.sandbox import SandboxLimits, check_isolation, run_all
from training.stages.recipe import nearest
from training.tuning.dataset_formats import NUMBER

Answer = str | list[dict[str, Any]]  # text that continues a prompt of text, or messages

LIMITS = SandboxLimits(cpu_seconds=2, wall_seconds=5.0)
# What TRL passes to a reward function beside the columns of the data.
ARGUMENTS = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}

_MINUS = "\u2212"  # typographic minus sign
_NUMBER = re.compile(
    rf"(?<![\w.])[-+{_MINUS}]?(?:(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+{_MINUS}]?\d+)?"
)
# A fenced block, matched as a whole, so that a closing fence does not open another; without one it runs to the end.
_BLOCK = re.compile(
    r"""
    ^ (?P<indent> [ \t]*) (?P<fence> `{3,} | ~{3,}) [ \t]* (?P<language> [^\s`]*) [^\n`]* \n
    (?P<body> .*?)
    (?: ^ (?P=indent) [ ]{0,3} (?P=fence) [`~]* \s*? $ | \Z)
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_PYTHON = {"", "python", "python3", "py"}

# The test program of the sandbox: it has the solution's functions under their names, and runs the examples on them.
_TEST_PROGRAM = """\
import doctest
examples = doctest.DocTestParser().get_doctest({examples!r}, globals(), "examples", None, 0)
assert doctest.DocTestRunner(verbose=False).run(examples).failed == 0
"""


def parses(prompts: list[Answer], completions: list[Answer], **_: Any) -> list[float]:
    """1 if the program in the answer is Python with at least one statement."""
    return [float(_parses(program(*pair))) for pair in zip(prompts, completions, strict=True)]


def defines(prompts: list[Answer], completions: list[Answer], name: list[str], **_: Any) -> list[float]:
    """1 if the program in the answer defines, at top level, the function that the column `name` names."""
    programs = [program(*pair) for pair in zip(prompts, completions, strict=True)]
    return [float(function in _functions(source)) for source, function in zip(programs, name, strict=True)]


def doctest(prompts: list[Answer], completions: list[Answer], tests: list[str], **_: Any) -> list[float]:
    """1 if the program in the answer passes the examples (`>>> double(2)`) in the column `tests`.

    The program runs in the sandbox, its examples in another process there: see docs/sandbox.md.

    Raises:
        ValueError: a record without examples.
        UserError: the system offers no isolation.
    """
    test_programs = []
    for text in tests:
        if not isinstance(text, str) or not standard_doctest.DocTestParser().get_examples(text):
            raise ValueError("'tests' holds no example such as >>> double(2)")
        test_programs.append(_TEST_PROGRAM.format(examples=text))
    programs = [program(*pair) for pair in zip(prompts, completions, strict=True)]
    return [float(outcome.passed) for outcome in run_all(programs, cores_per_process(), LIMITS, test_programs)]


def number(completions: list[Answer], answer: list[Any], **_: Any) -> list[float]:
    """1 if the last number in the answer equals the last one in the column `answer`, which may be text or a number.

    Raises:
        ValueError: a record whose `answer` holds no number.
    """
    rewards = []
    for completion, expected in zip(completions, answer, strict=True):
        correct = last_number(str(expected))
        if correct is None:
            raise ValueError(f"'answer' holds no number: {expected!r}")
        rewards.append(float(last_number(content(completion)) == correct))
    return rewards


def format(completions: list[Answer], pattern: list[str], **_: Any) -> list[float]:
    """1 if the regular expression in the column `pattern` matches the whole answer, leading and trailing whitespace
    removed."""
    pairs = zip(completions, pattern, strict=True)
    return [float(bool(re.fullmatch(regex, content(answer).strip(), re.DOTALL))) for answer, regex in pairs]


REWARDS = {function.__name__: function for function in (parses, defines, doctest, number, format)}
_OF_TRL = ("accuracy_reward", "think_format_reward", "reasoning_accuracy_reward")
ALL_OR_NOTHING = {*REWARDS, *_OF_TRL}  # rewards of 1 or 0, whose mean is a proportion


def content(answer: Answer) -> str:
    """The text of an answer."""
    return answer if isinstance(answer, str) else "".join(message.get("content") or "" for message in answer)


def program(prompt: Answer, answer: Answer) -> str:
    """The Python of an answer: its first fenced block that is marked as Python or not marked, or all of it. An answer
    that continues a prompt of text includes the prompt."""
    if isinstance(prompt, str):
        return prompt + content(answer)
    words = content(answer)
    fenced = next((block for block in _BLOCK.finditer(words) if block["language"].lower() in _PYTHON), None)
    return re.sub(f"^{fenced['indent']}", "", fenced["body"], flags=re.MULTILINE) if fenced else words


def last_number(words: str) -> Decimal | None:
    """The last number in a text, such as 1,234.50, -7, .5 or 1e-7; None if there is none."""
    found = _NUMBER.findall(words)
    try:
        return Decimal(found[-1].replace(",", "").replace(_MINUS, "-")) if found else None
    except InvalidOperation:  # digits of another script, or an exponent out of range
        return None


def _parses(source: str) -> bool:
    return bool(_statements(source))


def _functions(source: str) -> set[str]:
    """Names of the functions that a program defines at top level; empty if it is not Python."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in _statements(source) if isinstance(node, definitions)}


def _statements(source: str) -> list[ast.stmt]:
    """The statements of a program; none if it is not Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns about the style of some code
        try:
            return ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []


def find_rewards(
    names: Any, columns: list[str], where: str, key: str = "reward_funcs", data: str = "'datasets'"
) -> list[Callable]:
    """The functions that a recipe names (those above, TRL's, or import paths), each as a `checked_reward`.

    Args:
        columns: of the data. Errors do not name our own column `NUMBER`.
        where, key, data: what to call the recipe, its key with the names, and the data in an error.

    Raises:
        UserError: no such function, a column that it needs is missing, or the system offers no sandbox.
    """
    import trl.rewards

    columns = [column for column in columns if column != NUMBER]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: '{key}' takes a list of names, not {names!r}")
    of_trl = {name: getattr(trl.rewards, name) for name in _OF_TRL}
    # set to the same values as in the stock program
    of_trl["get_soft_overlong_punishment"] = trl.rewards.get_soft_overlong_punishment(1280, 256)
    known, functions = REWARDS | of_trl, []
    for name in names:
        if name not in known and "." not in name:
            raise UserError(f"{where}: '{key}': no reward '{name}'; {nearest(name, known)}; or an import path")
        try:
            function = known[name] if name in known else _import(name)
        except Exception as error:  # the user's module may raise anything
            raise UserError(f"{where}: '{key}': {name} cannot be imported ({_describe(error)})") from None
        try:
            missing = [column for column in _required_columns(function) if column not in columns]
        except (TypeError, ValueError):
            raise UserError(f"{where}: '{key}': {name} is not a reward function") from None
        if missing:
            found = ", ".join(columns) or "no columns"
            raise UserError(f"{where}: '{key}': {name} needs the column {', '.join(missing)}; {data} have {found}")
        if function is doctest:
            check_isolation()
        functions.append(checked_reward(function, name, key))
    return functions


def _import(name: str) -> Any:
    """The object at an import path, which may begin in the current folder, as in `trl grpo`: console scripts do not
    look there."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return resolve_name(name)


def _required_columns(function: Callable) -> list[str]:
    """The columns that a reward function needs: its parameters without a default that TRL does not pass.

    Raises:
        TypeError, ValueError: it is not a function, or has no signature.
    """
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in ARGUMENTS
    ]


def checked_reward(function: Callable, name: str, key: str = "reward_funcs") -> Callable:
    """The reward function with checked results: an exception, or a reward that is neither finite nor None, raises a
    UserError that names the record."""

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_later(**arguments: Any) -> list[float | None]:
            try:
                rewards = await function(**arguments)
            except Exception as error:
                raise UserError(f"'{key}': {name} failed ({_describe(error)})") from error
            return check_rewards(rewards, name, arguments, key)

        return call_later

    @functools.wraps(function)
    def call(**arguments: Any) -> list[float | None]:
        try:
            rewards = function(**arguments)
        except UserError:
            raise
        except Exception as error:
            where = _failing_record(function, arguments)
            raise UserError(f"'{key}': {name} failed{where} ({_describe(error)})") from error
        return check_rewards(rewards, name, arguments, key)

    return call


def check_rewards(rewards: Any, name: str, arguments: dict[str, Any], key: str = "reward_funcs") -> list[float | None]:
    """The rewards as a list, checked: a finite number or None for each completion.

    Raises:
        UserError: too few or too many rewards, or one that is not finite, with the number of its record.
    """
    rewards = list(rewards)
    if len(rewards) != len(arguments["completions"]):
        expected = len(arguments["completions"])
        raise UserError(f"'{key}': {name} gave {len(rewards)} rewards for {expected} completions")
    for place, reward in enumerate(rewards):
        try:
            fine = reward is None or math.isfinite(reward)
        except TypeError:
            fine = False
        if not fine:
            raise UserError(f"'{key}': {name} gave {reward!r}{_where(arguments, place)}; a reward must be finite")
    return rewards


def _failing_record(function: Callable, arguments: dict[str, Any]) -> str:
    """The first record on which a reward function fails, called with one completion at a time; empty if on none."""
    count = len(arguments["completions"])
    for place in range(count):
        try:
            function(**{key: _one(value, place, count) for key, value in arguments.items()})
        except Exception:
            return _where(arguments, place)
    return ""


def _one(value: Any, place: int, count: int) -> Any:
    return value[place : place + 1] if isinstance(value, list) and len(value) == count else value


def _where(arguments: dict[str, Any], place: int) -> str:
    record = f" on record {arguments[NUMBER][place]} of the data" if NUMBER in arguments else ""
    words = content(arguments["completions"][place])
    return f"{record}, completion {words if len(words) <= 60 else words[:57] + '...'!r}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
