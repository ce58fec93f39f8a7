"""The programs of an isolated process: a whole program, a solution that answers calls, or the tests that call it.

Open are 0 (/dev/null), 1 and 2 (the output), and the channels below, of which each process has only its own.
"""

import builtins
import importlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from training.sandbox.values import decode, encode, read_message, read_request, write_message, write_request

DETAIL_LENGTH = 300  # characters of an exception's message
REHEARSALS = 40
_REHEARSED = "def f(x, y):\n    return [x for x in (x, 1.5, y)]\nassert f(1, 'a') == [1, 1.5, 'a'], f(1, 'a')\n"
REPORT = 3  # where a program or tests report their end
SOLUTION_ANSWERS, SOLUTION_CALLS = 3, 4  # in the solution's process: written, read
TESTS_CALLS, TESTS_ANSWERS = 4, 5  # in the tests' process: written, read


def run_program(nonce: str, program: str) -> NoReturn:
    """Run a whole program, then report its end with the nonce.

    The nonce is in the memory of this process, so a program that looks for it can find it.
    """
    reason, detail = _execute(program, "<program>", _module("__main__"))
    _report(nonce, reason, detail)


def run_solution(solution: str) -> NoReturn:
    """Run a solution, then answer calls of its functions until the tests end."""
    module = _module("solution")
    reason, detail = _execute(solution, "<solution>", module)
    if reason == "passed":
        write_message(SOLUTION_ANSWERS, _names(module))
    while reason == "passed":
        name, arguments, keywords = read_message(SOLUTION_CALLS)
        answer, (reason, detail) = _answer(getattr(module, name), decode(arguments), decode(keywords))
        if reason == "passed":
            write_message(SOLUTION_ANSWERS, answer)
    write_message(SOLUTION_ANSWERS, {"failed": [reason, detail]})
    os._exit(0)


def _names(module: types.ModuleType) -> dict[str, dict[str, list[Any]]]:
    described = {name: _describe_name(value) for name, value in vars(module).items()}
    return {"names": {name: kind for name, kind in described.items() if kind}}


def _describe_name(value: Any) -> list[Any] | None:
    """Description of a solution's global for the tests: a function, a module by name, or a plain value."""
    if callable(value):
        return ["function"]
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    try:
        return ["value", encode(value)]
    except TypeError:
        return None


def _answer(function: Callable, arguments: list[Any], keywords: dict[str, Any]) -> tuple[Any, tuple[str, str]]:
    """The answer to one call, and reason and detail of its end. Exceptions of the function are answers too."""
    answer = None

    def call() -> None:
        nonlocal answer
        try:
            value = function(*arguments, **keywords)
            answer = {"value": encode(value), "arguments": encode(arguments)}
        except MemoryError:
            raise
        except Exception as error:
            try:
                answer = {"raised": [type(error).__name__, encode(error.args)]}
            except TypeError:
                answer = {"raised": [type(error).__name__, encode((_describe(error),))]}

    outcome = _outcome(call)
    return answer, outcome


def run_tests(nonce: str, tests: str) -> NoReturn:
    """Run tests against a solution in another process, from which only plain values arrive here."""
    module = _module("tests")
    solution = _Solution(nonce, TESTS_CALLS, TESTS_ANSWERS)
    # compiled while the solution runs, in the other process
    _report(nonce, *_execute(tests, "<tests>", module, lambda: solution.define_names(module)))


class _Solution:
    """The solution in the other process, as the tests see it.

    Args:
        calls, answers: descriptors, the first to write.
    """

    def __init__(self, nonce: str, calls: int, answers: int):
        self.nonce, self.calls, self.answers = nonce, calls, answers

    def receive(self) -> dict[str, Any]:
        """The next answer. A solution that failed, or answers with anything but a value, ends the tests."""
        try:
            message = read_message(self.answers)
            if "failed" in message:
                reason, detail = map(str, message["failed"])
                _report(self.nonce, reason if reason != "passed" else "error", detail)
            return message
        except EOFError:
            _report(self.nonce, "gone", "the solution's process ended")
        except (ValueError, TypeError):
            _report(self.nonce, "error", "the solution answered with something other than a plain value")

    def define_names(self, module: types.ModuleType) -> None:
        """Give the tests the solution's names."""
        for name, (kind, *content) in self.receive()["names"].items():
            if name.startswith("__") or hasattr(builtins, name):
                continue  # a solution must not replace a builtin that the tests use, such as `abs`
            if kind == "function":
                setattr(module, name, self.proxy(name))
            elif kind == "value":
                setattr(module, name, decode(*content))
            elif content[0].partition(".")[0] in sys.stdlib_module_names:
                setattr(module, name, importlib.import_module(content[0]))

    def proxy(self, name: str) -> Callable:
        """A function that the solution answers."""

        def function(*arguments, **keywords):
            write_message(self.calls, [name, encode(list(arguments)), encode(keywords)])
            message = self.receive()
            if "raised" in message:
                raise _exception(*message["raised"])
            for argument, changed in zip(arguments, decode(message["arguments"])):
                _update_in_place(argument, changed)
            return decode(message["value"])

        function.__name__ = name
        return function


def _exception(kind: str, arguments: Any) -> Exception:
    """A built-in exception as it was raised; any other as a RuntimeError that names it.

    StopIteration counts as other: it would end a loop over answers before its assertions.
    """
    known = getattr(builtins, str(kind), None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, StopIteration):
        return known(*decode(arguments))
    return RuntimeError(f"{kind}: {', '.join(map(str, decode(arguments)))}")


def _update_in_place(argument: Any, changed: Any) -> None:
    """Change an argument as the solution changed its copy."""
    if type(argument) is list:
        argument[:] = changed
    elif type(argument) in (dict, set):
        argument.clear()
        argument.update(changed)


def _module(name: str) -> types.ModuleType:
    """An empty module, registered in sys.modules, where dataclasses and pickle look for it."""
    module = types.ModuleType(name)
    module.__builtins__ = builtins
    sys.modules[name] = module
    return module


def _execute(
    source: str, filename: str, module: types.ModuleType, prepare: Callable[[], None] | None = None
) -> tuple[str, str]:
    """Run source code in a module: reason, "passed" if it reached its last line, and detail.

    Args:
        prepare: called between compiling and running.
    """
    try:
        code = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return "syntax", _describe(error)
    if prepare is not None:
        prepare()
    return _outcome(lambda: exec(code, vars(module)))


def _outcome(function: Callable[[], None]) -> tuple[str, str]:
    """Call a function: reason and detail of its end."""
    try:
        function()
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as error:
        return "exit", _describe(error)
    except AssertionError as error:
        return "assertion", _describe(error)
    except MemoryError as error:
        return "memory", _describe(error)
    except BaseException as error:
        return "error", _describe(error)
    return "passed", ""


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:DETAIL_LENGTH]
    except BaseException:  # its __str__ is the program's code
        return "an exception without a message"


def _report(nonce: str, reason: str, detail: str) -> NoReturn:
    os.write(REPORT, f"{nonce}\n{reason}\n{detail}".encode("utf-8", "replace"))
    os._exit(0)  # no atexit, no destructors, no waiting for threads


def rehearse() -> None:
    """Run the code of this module often enough that Python has specialized it.

    Until then Python counts in the code how often it ran, and every forked process would copy these pages.
    """
    reader, writer = os.pipe()
    tests = _Solution("", writer, reader)
    for _ in range(REHEARSALS):
        write_request(writer, "", "")
        read_request(reader)
        module = _module("__main__")
        _execute(_REHEARSED, "<program>", module)
        write_message(writer, _names(module))
        tests.define_names(module)
        write_message(writer, _answer(lambda x, y: x, [1, "a"], {})[0])
        module.f(1, "a")  # reads this answer, and leaves its question
        name, arguments, keywords = read_message(reader)
        decode(arguments)
    os.close(reader)
    os.close(writer)
    del sys.modules["__main__"]
