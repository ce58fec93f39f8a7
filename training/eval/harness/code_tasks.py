"""lm-eval's HumanEval, with the answers run in the sandbox.

lm-eval hands what a model wrote to `code_eval` of the `evaluate` library, which runs it beside the evaluation with
your files and your network, and which comes from the Hub. Inside `sandboxed_code_eval` it gets `CodeEval` instead;
prompts, stops, filters and samples stay lm-eval's own.
"""

import ast
import contextlib
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from training.common.errors import UserError
from training.sandbox import Outcome, SandboxLimits, check_isolation, run_all

# Those of lm-eval's tasks that run code whose tests compare plain values. MBPP's build objects of the solution's
# classes, those of HumanEval+ need numpy.
CODE_TASKS = ("humaneval", "humaneval_64", "humaneval_instruct", "humaneval_64_instruct")


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that at least one of k samples passes, estimated without bias from more samples than k.

    1 - C(samples - passed, k) / C(samples, k), https://arxiv.org/abs/2107.03374, equation 1.

    Raises:
        ValueError: fewer samples than k, or more passed than there are.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {passed} passed in {samples} samples is not defined")
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


class CodeEval:
    """In the place of `evaluate.load("code_eval")`: the same call, and the same estimate.

    A sample passes if its tests, in a process of their own, find the plain values they ask for: see `run_python`. So
    no answer can fake a pass.

    Args:
        workers: programs at a time; None for one a core.
        allow_unisolated: see `run_python`.
    """

    def __init__(
        self, workers: int | None = None, limits: SandboxLimits = SandboxLimits(), allow_unisolated: bool = False
    ):
        self.workers = workers or os.cpu_count() or 1
        self.limits, self.allow_unisolated = limits, allow_unisolated

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1, 10, 100)
    ) -> tuple[dict[str, float], list[list[Outcome]]]:
        """
        Args:
            references: the tests of each problem.
            predictions: the samples of each problem, whole solutions.
            k: for which pass@k; left out where a problem has fewer samples.

        Returns:
            pass@k averaged over problems, and the outcomes of each problem's samples.

        Raises:
            UserError: tests that need a package, which the sandbox does not have; no isolation here.
        """
        for tests in references:
            _check_imports(tests)
        flat = [(solution, tests) for tests, samples in zip(references, predictions) for solution in samples]
        solutions, tests = [pair[0] for pair in flat], [pair[1] for pair in flat]
        outcomes = iter(run_all(solutions, self.workers, self.limits, tests, self.allow_unisolated))
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
                raise UserError(f"the tests of this task import {name}, which the sandbox does not have; leave it out")


@contextlib.contextmanager
def sandboxed_code_eval(
    workers: int | None = None, limits: SandboxLimits = SandboxLimits(), allow_unisolated: bool = False
) -> Iterator[None]:
    """While this lasts, lm-eval's tasks that are loaded run code in the sandbox, and `evaluate` runs none at all.

    Load the tasks inside (they ask for `code_eval` when they are loaded) and evaluate inside or later, with lm-eval's
    `confirm_run_unsafe_code=True`, which now confirms nothing unsafe.
    """
    import evaluate

    stock = evaluate.load

    def load(path: str, *arguments: Any, **keywords: Any) -> Any:
        if path == "code_eval":
            return CodeEval(workers, limits, allow_unisolated)
        return stock(path, *arguments, **keywords)

    _forget_task_modules()
    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = stock
        _forget_task_modules()


def _forget_task_modules() -> None:
    """A task's module holds the `code_eval` it was loaded with, and lm-eval keeps modules."""
    for name in [name for name in sys.modules if name.startswith("lm_eval.tasks.humaneval")]:
        del sys.modules[name]


def check_code_tasks(names: Sequence[str], allow_unisolated: bool = False) -> None:
    """Refuse, before any work, tasks of programming that this system cannot run safely.

    Raises:
        UserError: no isolation here.
    """
    if not allow_unisolated and set(names) & set(CODE_TASKS):
        check_isolation()


def write_code_task(
    folder: Path,
    items: Path | None = None,
    samples: int | None = None,
    ks: Sequence[int] = (1,),
    temperature: float = 0.8,
    top_p: float = 0.95,
    max_gen_toks: int | None = None,
) -> str:
    """Write a task file that is lm-eval's HumanEval on other items, with more samples, or with shorter answers.

    Args:
        folder: for the file, to give to lm-eval as `include_path`.
        items: a `.jsonl` file in HumanEval's own columns (task_id, prompt, entry_point, canonical_solution, test);
            None for the Hub's.
        samples: answers to each item, drawn at `temperature` from the likeliest tokens that make up `top_p`; None for
            one, greedily.
        ks: for which pass@k, with samples.
        max_gen_toks: tokens an answer may take, for a model whose context is no longer than the task's 1024.

    Returns:
        The task's name: `humaneval`, or `humaneval_10` for 10 samples.

    Raises:
        UserError: pass@k of fewer samples than k.
    """
    if samples is not None and max(ks) > samples:
        raise UserError(f"pass@{max(ks)} needs {max(ks)} samples of each item, not {samples}")
    import lm_eval.tasks

    own = Path(lm_eval.tasks.__file__).parent / "humaneval"
    index = lm_eval.tasks.TaskManager(include_path=str(own), include_defaults=False).task_index
    generation = dict(index["humaneval"].cfg["generation_kwargs"])
    content: dict[str, Any] = {"include": str(own / "humaneval.yaml")}
    content["task"] = name = "humaneval" if samples is None else f"humaneval_{samples}"
    if items is not None:
        content |= {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(items.resolve())}}}
    if max_gen_toks is not None:
        generation["max_gen_toks"] = max_gen_toks
    text = ""
    if samples is not None:
        generation |= {"do_sample": True, "temperature": temperature, "top_p": top_p}
        content["repeats"] = samples
        # The metric is a function, which YAML writes only as lm-eval's own tag.
        text = "metric_list:\n  - metric: !function lm_eval.tasks.humaneval.utils.pass_at_k\n"
        text += f"    aggregation: mean\n    higher_is_better: true\n    k: {list(ks)}\n"
    content["generation_kwargs"] = generation
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False) + text, encoding="utf-8")
    return name
