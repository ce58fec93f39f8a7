"""Inside one locked process: a program, or a solution that answers calls, or the tests that call it."""

import builtins
import fcntl
import importlib
import os
import resource
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from training.sandbox import kernel, seccomp
from training.sandbox.values import decode, encode, read_message, write_message

DETAIL_LENGTH = 300
REPORT = 3  # the first channel, but for a solution
OUT_OF_THE_WAY = 200  # above every descriptor that is open here


class Lock(NamedTuple):
    """How a cell is locked."""

    isolation: str  # "namespaces", "landlock" or "none"
    landlock: int | None  # the descriptor that `kernel.open_landlock` returned
    limits: kernel.ProcessLimits
    scratch: int


def leave_behind(output: int, channels: list[int]) -> None:
    """Keep nothing of the process that forked this one: no descriptor, no environment, no terminal.

    Open are 0 (/dev/null), 1 and 2 (output) and, from 3 on, the channels.
    """
    os.setsid()
    parked = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, OUT_OF_THE_WAY) for descriptor in (output, output, *channels)]
    for place, descriptor in enumerate(parked, start=1):
        os.dup2(descriptor, place)
    os.closerange(len(parked) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.environ.clear()
    sys.argv = ["program"]


def lock_up(lock: Lock) -> None:
    """Close every lock, the ways to open it last.

    Raises:
        OSError: one does not close.
    """
    if lock.isolation == "namespaces":
        kernel.mount_scratch(lock.scratch)
    if lock.isolation != "none":
        kernel.drop_rights(become_nobody=lock.isolation == "namespaces" and os.geteuid() == 0)
    if lock.landlock is not None:
        kernel.restrict_files(lock.landlock)
        os.close(lock.landlock)
    kernel.set_limits(lock.limits)
    if lock.isolation != "none":
        seccomp.seal(kernel.libc)


def run_program(nonce: str, program: str) -> NoReturn:
    """Run a whole program; its end is reported with the nonce, which a program that looks for it can find."""
    failure = _execute(program, "<program>", _module("__main__"))
    _report(nonce, *failure)


def run_solution(solution: str) -> NoReturn:
    """Run a solution, then answer calls of its functions for as long as the other side asks."""
    answers, calls = 3, 4
    module = _module("solution")
    reason, detail = _execute(solution, "<solution>", module)
    if reason == "passed":
        write_message(
            answers, {"names": {name: said for name, value in vars(module).items() if (said := _tell(value))}}
        )
    while reason == "passed":
        name, arguments, keywords = read_message(calls)
        answer, (reason, detail) = _answer(getattr(module, name), decode(arguments), decode(keywords))
        if reason == "passed":
            write_message(answers, answer)
    write_message(answers, {"failed": [reason, detail]})
    os._exit(0)


def _tell(value: Any) -> list[Any] | None:
    """What the tests may know of a global name of the solution."""
    if callable(value):
        return ["function"]
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    try:
        return ["value", encode(value)]
    except TypeError:
        return None


def _answer(function: Callable, arguments: list[Any], keywords: dict[str, Any]) -> tuple[Any, tuple[str, str]]:
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
    """Run tests against a solution in another process, of which nothing but plain values arrives here."""
    calls, answers = 4, 5

    def receive() -> dict[str, Any]:
        """The next answer; a solution that failed, or answers nonsense, ends the tests where they stand."""
        try:
            message = read_message(answers)
            if "failed" in message:
                reason, detail = map(str, message["failed"])
                _report(nonce, reason if reason != "passed" else "error", detail)
            return message
        except EOFError:
            _report(nonce, "gone", "the solution's process ended")
        except (ValueError, TypeError):
            _report(nonce, "error", "the solution answered with something else than a value")

    def proxy(name: str) -> Callable:
        def function(*arguments, **keywords):
            write_message(calls, [name, encode(list(arguments)), encode(keywords)])
            message = receive()
            if "raised" in message:
                raise _exception(*message["raised"])
            for mine, now in zip(arguments, decode(message["arguments"])):
                _renew(mine, now)
            return decode(message["value"])

        function.__name__ = name
        return function

    module = _module("tests")
    names = receive()["names"]
    for name, (kind, *content) in names.items():
        if name.startswith("__") or hasattr(builtins, name):
            continue  # tests must mean what they say: no `abs` of the solution's
        if kind == "function":
            setattr(module, name, proxy(name))
        elif kind == "value":
            setattr(module, name, decode(*content))
        elif content[0].partition(".")[0] in sys.stdlib_module_names:
            setattr(module, name, importlib.import_module(content[0]))
    _report(nonce, *_execute(tests, "<tests>", module))


def _exception(kind: str, arguments: Any) -> Exception:
    """A built-in exception as it was raised, any other as a RuntimeError that names it.

    StopIteration is such another: it would end a loop over answers before its assertions.
    """
    known = getattr(builtins, str(kind), None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, StopIteration):
        return known(*decode(arguments))
    return RuntimeError(f"{kind}: {', '.join(map(str, decode(arguments)))}")


def _renew(mine: Any, now: Any) -> None:
    """Do to an argument what the solution did to its copy."""
    if type(mine) is list:
        mine[:] = now
    elif type(mine) in (dict, set):
        mine.clear()
        mine.update(now)


def _module(name: str) -> types.ModuleType:
    """An empty module under this name, where dataclasses and pickle look for it."""
    module = types.ModuleType(name)
    module.__builtins__ = builtins
    sys.modules[name] = module
    return module


def _execute(source: str, filename: str, module: types.ModuleType) -> tuple[str, str]:
    """Why it ended, "passed" if by its last line, and the message."""
    try:
        code = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return "syntax", _describe(error)
    return _outcome(lambda: exec(code, vars(module)))


def _outcome(function: Callable[[], None]) -> tuple[str, str]:
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
    except BaseException:  # its __str__ is the program's
        return "an exception without a message"


def _report(nonce: str, reason: str, detail: str) -> NoReturn:
    write_message(REPORT, [nonce, reason, detail])
    os._exit(0)  # no atexit, no destructors, no waiting for threads
