"""HumanEval by lm-eval, with the answers run in the sandbox.

lm-eval passes generated code to `code_eval` of the `evaluate` library, which runs it with access to your files and
your network. Inside `sandboxed_code_eval` lm-eval gets `CodeEval` instead; prompts, stops, filters and samples stay
lm-eval's own.
"""

import ast
import contextlib
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from training.common.errors import UserError
from training.sandbox import Outcome, SandboxLimits, check_isolation, run_all

# lm-eval's programming tasks whose tests compare plain values. Those of MBPP build objects of the solution's classes;
# those of HumanEval+ need numpy.
CODE_TASKS = ("humaneval", "humaneval_64", "humaneval_instruct", "humaneval_64_instruct")


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of k samples passes, from k or more samples.

    1 - C(samples - passed, k) / C(samples, k), https://arxiv.org/abs/2107.03374, equation 1.

    Raises:
        ValueError: fewer samples than k, or more passed than samples.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {passed} passed in {samples} samples is not defined")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


class CodeEval:
    """Replacement for `evaluate.load("code_eval")`: the same call and the same estimate.

    A sample passes if its tests, in a separate process, find the plain values they expect (see `run_python`), so an
    answer cannot fake a pass.

    Args:
        workers: programs that run at a time; None for one per core.
        limits: of each program.
    """

    def __init__(self, workers: int | None = None, limits: SandboxLimits = SandboxLimits()):
        self.workers, self.limits = workers or os.cpu_count() or 1, limits

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1, 10, 100)
    ) -> tuple[dict[str, float], list[list[Outcome]]]:
        """Run the samples of each problem and estimate pass@k.

        Args:
            references: the tests of each problem.
            predictions: the samples of each problem, whole solutions.
            k: values of k for pass@k; those that exceed the samples of a problem are left out.

        Returns:
            pass@k averaged over problems, and the outcomes of each problem's samples.

        Raises:
            UserError: tests that import a package, or a system without isolation.
        """
        for tests in references:
            _check_imports(tests)
        flat = [(solution, tests) for tests, samples in zip(references, predictions) for solution in samples]
        solutions, tests = [pair[0] for pair in flat], [pair[1] for pair in flat]
        outcomes = iter(run_all(solutions, self.workers, self.limits, tests))
        grouped = [[next(outcomes) for _ in samples] for samples in predictions]
        counts = [(len(group), sum(outcome.passed for outcome in group)) for group in grouped]
        fewest = min(samples for samples, _ in counts)
        return {
            f"pass@{n}": statistics.fmean(pass_at_k(*count, n) for count in counts) for n in k if n <= fewest
        }, grouped


def _check_imports(tests: str) -> None:
    for node in ast.walk(ast.parse(tests)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in names:
            if name.partition(".")[0] not in sys.stdlib_module_names:
                raise UserError(
                    f"'tasks': the tests of a task import {name}, which the sandbox does not have; leave the task out"
                )


@contextlib.contextmanager
def sandboxed_code_eval(workers: int | None = None, limits: SandboxLimits = SandboxLimits()) -> Iterator[None]:
    """Context in which lm-eval's programming tasks are loaded so that they run code in the sandbox.

    Load the tasks inside (they request `code_eval` when they are loaded) and evaluate inside or later, with lm-eval's
    `confirm_run_unsafe_code=True`, which is then safe.
    """
    import evaluate

    stock = evaluate.load

    def load(path: str, *arguments: Any, **keywords: Any) -> Any:
        if path == "code_eval":
            return CodeEval(workers, limits)
        return stock(path, *arguments, **keywords)

    _forget_task_modules()
    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = stock
        _forget_task_modules()


def _forget_task_modules() -> None:
    """Unload task modules: each holds the `code_eval` it was loaded with, and lm-eval caches modules."""
    for name in [name for name in sys.modules if name.startswith("lm_eval.tasks.humaneval")]:
        del sys.modules[name]


def check_code_tasks(names: Sequence[str]) -> None:
    """Reject, before any work, programming tasks that this system cannot run safely.

    Raises:
        UserError: the system offers no isolation.
    """
    if set(names) & set(CODE_TASKS):
        check_isolation()
