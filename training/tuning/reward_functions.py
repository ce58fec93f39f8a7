"""Rewards that can be checked: functions as TRL calls them, by name (`number`) or import path in a recipe.

TRL gives each `prompts`, `completions` and every column of the data by its name, and wants a number for each completion
(None: not judged). All of these give 1 or 0. `trl grpo` takes them as `training.tuning.reward_functions.number`.
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

from training.common.errors import UserError
from training.common.processes import cores_per_process
from training.common.recipe import nearest
from training.sandbox import SandboxLimits, check_isolation, run_all
from training.tuning.dataset_formats import NUMBER

Answer = str | list[dict[str, Any]]  # text that goes on from a prompt of text, or messages

LIMITS = SandboxLimits(cpu_seconds=2, wall_seconds=5.0)
GIVEN = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}  # by TRL

_MINUS = "\u2212"  # as typesetters write it
_NUMBER = re.compile(
    rf"(?<![\w.])[-+{_MINUS}]?(?:(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+{_MINUS}]?\d+)?"
)
# A fenced block, matched as a whole, so that what closes one opens no other; one that nothing closes goes to the end.
_BLOCK = re.compile(
    r"""
    ^ (?P<indent> [ \t]*) (?P<fence> `{3,} | ~{3,}) [ \t]* (?P<language> [^\s`]*) [^\n`]* \n
    (?P<body> .*?)
    (?: ^ (?P=indent) [ ]{0,3} (?P=fence) [`~]* \s*? $ | \Z)
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_PYTHON = {"", "python", "python3", "py"}

# The judge of the sandbox: it has the solution's functions under their names and runs the examples on them.
_JUDGE = """\
import doctest
examples = doctest.DocTestParser().get_doctest({examples!r}, globals(), "examples", None, 0)
assert doctest.DocTestRunner(verbose=False).run(examples).failed == 0
"""


def parses(prompts: list[Answer], completions: list[Answer], **_: Any) -> list[float]:
    """Whether the program in the answer is Python with at least one statement."""
    return [float(_parses(program(*pair))) for pair in zip(prompts, completions, strict=True)]


def defines(prompts: list[Answer], completions: list[Answer], name: list[str], **_: Any) -> list[float]:
    """Whether the program in the answer defines the function that the column `name` names, at top level."""
    programs = [program(*pair) for pair in zip(prompts, completions, strict=True)]
    return [float(wanted in _functions(source)) for source, wanted in zip(programs, name, strict=True)]


def doctest(prompts: list[Answer], completions: list[Answer], tests: list[str], **_: Any) -> list[float]:
    """Whether the program in the answer gives what the examples (`>>> double(2)`) in the column `tests` say.

    The program runs in the sandbox, its examples in another process of it: see docs/sandbox.md.

    Raises:
        ValueError: a record without examples.
        UserError: the system offers no isolation.
    """
    judges = []
    for text in tests:
        if not isinstance(text, str) or not standard_doctest.DocTestParser().get_examples(text):
            raise ValueError("'tests' holds no example such as >>> double(2)")
        judges.append(_JUDGE.format(examples=text))
    programs = [program(*pair) for pair in zip(prompts, completions, strict=True)]
    return [float(outcome.passed) for outcome in run_all(programs, cores_per_process(), LIMITS, judges)]


def number(completions: list[Answer], answer: list[Any], **_: Any) -> list[float]:
    """Whether the last number in the answer is the last one in the column `answer`, which may be text or a number.

    Raises:
        ValueError: a record whose `answer` holds no number.
    """
    rewards = []
    for completion, wanted in zip(completions, answer, strict=True):
        right = last_number(str(wanted))
        if right is None:
            raise ValueError(f"'answer' holds no number: {wanted!r}")
        rewards.append(float(last_number(content(completion)) == right))
    return rewards


def format(completions: list[Answer], pattern: list[str], **_: Any) -> list[float]:
    """Whether the regular expression in the column `pattern` fits the whole answer, white space around it aside."""
    pairs = zip(completions, pattern, strict=True)
    return [float(bool(re.fullmatch(wanted, content(answer).strip(), re.DOTALL))) for answer, wanted in pairs]


REWARDS = {function.__name__: function for function in (parses, defines, doctest, number, format)}
_THEIRS = ("accuracy_reward", "think_format_reward", "reasoning_accuracy_reward")  # TRL's
ALL_OR_NOTHING = {*REWARDS, *_THEIRS}  # those that give 1 or 0, so that their mean is a share


def content(answer: Answer) -> str:
    """The words of an answer."""
    return answer if isinstance(answer, str) else "".join(message.get("content") or "" for message in answer)


def program(prompt: Answer, answer: Answer) -> str:
    """The Python of an answer: its first fenced block of Python or of no language, or all of it; what goes on from a
    prompt of text, with that."""
    if isinstance(prompt, str):
        return prompt + content(answer)
    words = content(answer)
    fenced = next((block for block in _BLOCK.finditer(words) if block["language"].lower() in _PYTHON), None)
    return re.sub(f"^{fenced['indent']}", "", fenced["body"], flags=re.MULTILINE) if fenced else words


def last_number(words: str) -> Decimal | None:
    """Such as 1,234.50, -7, .5 or 1e-7; None if there is none."""
    found = _NUMBER.findall(words)
    try:
        return Decimal(found[-1].replace(",", "").replace(_MINUS, "-")) if found else None
    except InvalidOperation:  # digits of another script, or an exponent beyond all bounds
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
        warnings.simplefilter("ignore")  # what Python thinks of the style of a program
        try:
            return ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []


def find_rewards(
    names: Any, columns: list[str], where: str, key: str = "reward_funcs", data: str = "'datasets'"
) -> list[Callable]:
    """The functions that a recipe names: ours, TRL's, or by import path; each watched.

    Args:
        columns: of the data; `NUMBER`, which is ours, is not named among them.
        where, key, data: what to call the recipe, its key with the names, and the data in an error.

    Raises:
        UserError: no such function, or it wants a column that the data have not, or a sandbox that is not to be had.
    """
    import trl.rewards

    columns = [column for column in columns if column != NUMBER]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: '{key}' takes a list of names, not {names!r}")
    theirs = {name: getattr(trl.rewards, name) for name in _THEIRS}
    # with the values that the stock program gives it
    theirs["get_soft_overlong_punishment"] = trl.rewards.get_soft_overlong_punishment(1280, 256)
    known, functions = REWARDS | theirs, []
    for name in names:
        if name not in known and "." not in name:
            raise UserError(f"{where}: '{key}': no reward '{name}'; {nearest(name, known)}; or an import path")
        try:
            function = known[name] if name in known else _imported(name)
        except Exception as error:  # whatever the user's own module does
            raise UserError(f"{where}: '{key}': {name} cannot be imported ({_in_words(error)})") from None
        try:
            missing = [column for column in _wanted(function) if column not in columns]
        except (TypeError, ValueError):
            raise UserError(f"{where}: '{key}': {name} is no function that could be a reward") from None
        if missing:
            raise UserError(
                f"{where}: '{key}': {name} needs the column {', '.join(missing)}; {data} have {', '.join(columns)}"
            )
        if function is doctest:
            check_isolation()
        functions.append(watched(function, name, key))
    return functions


def _imported(name: str) -> Any:
    """What an import path names, in the current folder too, as in `trl grpo`: console scripts do not look there."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return resolve_name(name)


def _wanted(function: Callable) -> list[str]:
    """The columns that a reward cannot do without.

    Raises:
        TypeError, ValueError: it is no function, or tells nothing of what it takes.
    """
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in GIVEN
    ]


def watched(function: Callable, name: str, key: str = "reward_funcs") -> Callable:
    """The same reward, which says in a line where it fails: an exception, or what is no finite number and not None."""

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_later(**given: Any) -> list[float | None]:
            try:
                rewards = await function(**given)
            except Exception as error:
                raise UserError(f"'{key}': {name} failed ({_in_words(error)})") from error
            return check_rewards(rewards, name, given, key)

        return call_later

    @functools.wraps(function)
    def call(**given: Any) -> list[float | None]:
        try:
            rewards = function(**given)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"'{key}': {name} failed{_culprit(function, given)} ({_in_words(error)})") from error
        return check_rewards(rewards, name, given, key)

    return call


def check_rewards(rewards: Any, name: str, given: dict[str, Any], key: str = "reward_funcs") -> list[float | None]:
    """A number or None for each completion.

    Raises:
        UserError: too few or too many, or one that is no finite number; it names the record.
    """
    rewards = list(rewards)
    if len(rewards) != len(given["completions"]):
        raise UserError(f"'{key}': {name} gave {len(rewards)} rewards for {len(given['completions'])} completions")
    for place, reward in enumerate(rewards):
        try:
            fine = reward is None or math.isfinite(reward)
        except TypeError:
            fine = False
        if not fine:
            raise UserError(f"'{key}': {name} gave {reward!r}{_where(given, place)}; a reward is a finite number")
    return rewards


def _culprit(function: Callable, given: dict[str, Any]) -> str:
    """Where a reward fails that is given one completion at a time; nothing if it does not."""
    count = len(given["completions"])
    for place in range(count):
        try:
            function(**{key: _one(value, place, count) for key, value in given.items()})
        except Exception:
            return _where(given, place)
    return ""


def _one(value: Any, place: int, count: int) -> Any:
    return value[place : place + 1] if isinstance(value, list) and len(value) == count else value


def _where(given: dict[str, Any], place: int) -> str:
    record = f" on record {given[NUMBER][place]} of the data" if NUMBER in given else ""
    words = content(given["completions"][place])
    return f"{record}, completion {words if len(words) <= 60 else words[:57] + '...'!r}"


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
