"""Task scores by lm-eval, the harness behind most published scores."""

import copy
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.eval.harness.catalog import TaskCatalog, quiet
from training.eval.harness.code_tasks import CODE_TASKS
from training.eval.harness.task_scores import group_figures, item_outcomes, mean_outcomes, task_figures, tokens_of
from training.eval.measures.figures import MeasureResult

DEFAULT_SEED = 1234  # lm-eval's own, for drawing few-shot examples
_BOOTSTRAP = 1000  # resamples for metrics such as F1; lm-eval's 100,000 take minutes
# Metrics whose standard error follows from the items, without resampling.
_CLOSED_FORM = {"mean", "perplexity", "weighted_perplexity", "bits_per_byte"}


@dataclass(frozen=True)
class TaskSettings:
    """Settings for presenting tasks to a model.

    Attributes:
        apply_chat_template: present items as a turn of a conversation.
        limit: items of each task, the first ones; None for all.
        seeds: for drawing few-shot examples.
    """

    apply_chat_template: bool = False
    limit: int | None = None
    seeds: tuple[int, ...] = (DEFAULT_SEED,)


class TaskRunner:
    """Runs the tasks of a catalog on models, with lm-eval's defaults where `settings` says nothing."""

    def __init__(self, catalog: TaskCatalog, settings: TaskSettings = TaskSettings()):
        self.catalog, self.settings = catalog, settings
        self._items: list[Any] = []  # lm-eval's task and group objects
        self._answer_lengths: dict[str, int] = {}  # by generation task, the maximum tokens of an answer

    def load(self) -> None:
        """Load the tasks with their data.

        Raises:
            UserError: data missing, a task that would run generated code outside the sandbox, or seeds without effect.
        """
        self._items = self.catalog.load()
        for task in (task for item in self._items for task in _members(item)):
            if getattr(task, "UNSAFE_CODE", False) and task.task_name not in CODE_TASKS:
                raise UserError(
                    f"'tasks': lm-eval would run generated code for {task.task_name} outside the sandbox; leave it out "
                    f"(in the sandbox run {', '.join(CODE_TASKS)})"
                )
            if task.OUTPUT_TYPE == "generate_until":
                options = task.get_config("generation_kwargs") or {}
                self._answer_lengths[task.task_name] = options.get("max_gen_toks", 256)  # lm-eval's default
        if len(self.settings.seeds) > 1 and not any(map(self._draws_examples, self._items)):
            raise UserError("'fewshot_seeds': none of the tasks draws few-shot examples; remove the seeds")

    def check_lengths(self, context: int, model: str) -> None:
        """Reject a model whose context leaves no room for the answers of a task.

        Raises:
            UserError: for the first such task.
        """
        for name, length in self._answer_lengths.items():
            if name not in CODE_TASKS and length >= context:
                raise UserError(
                    f"'tasks': answers of {name} may take {length} tokens, but {model} has a context of {context}; "
                    "leave the task out"
                )

    def score(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int, context: int
    ) -> MeasureResult:
        """Run the tasks on a model."""
        from training.eval.harness.language_model import SharedPrefixLM, compiled_templates
        from training.model_io.tokenizers import naming_unknown

        if not self.settings.apply_chat_template:  # the texts of tasks hold no control tokens then
            tokenizer = copy.copy(tokenizer)
            tokenizer.split_special_tokens = True
        with quiet():
            lm = SharedPrefixLM(model, backend="causal", tokenizer=tokenizer, batch_size=batch_size, max_length=context)
        self._shorten_programs(context)
        first, *more = self.settings.seeds
        drawing = [item for item in self._items if self._draws_examples(item)]
        with naming_unknown(tokenizer, ()), compiled_templates():
            kept = {task.task_name: self._fitting(task, lm) for item in self._items for task in _members(item)}
            runs = [self._run(lm, self._items, first, kept)]
            if drawing:
                runs += [self._run(lm, drawing, seed, kept) for seed in more]
        outcomes = mean_outcomes([item_outcomes(results) for results in runs])
        scores = MeasureResult(outcomes=[outcome for task in outcomes.values() for outcome in task.values()])
        for item in self._items:
            tasks = {}
            for task in _members(item):
                name = task.task_name
                tasks |= task_figures(name, runs, outcomes[name], self._count(task) - len(kept[name]), lm)
            if _is_group(item) and item.aggregate_metric_list:
                scores.subtasks[item.name] = tasks
                tasks = group_figures(item, runs, tasks)
            scores.figures |= tasks
        return scores

    def _shorten_programs(self, context: int) -> None:
        """Leave half of a model's context to the prompt of a programming task, whose answers may be longer."""
        for task in (task for item in self._items for task in _members(item)):
            if task.task_name in CODE_TASKS:
                length = min(self._answer_lengths[task.task_name], context // 2)
                task.set_config("generation_kwargs", {"max_gen_toks": length}, update=True)

    def _draws_examples(self, item: Any) -> bool:
        """Whether any of its tasks draws few-shot examples at random."""
        from lm_eval.api.samplers import FirstNSampler

        return any(
            self.catalog.shots(task.get_config("num_fewshot"))
            and not isinstance(getattr(task, "sampler", None), FirstNSampler)
            for task in _members(item)
        )

    def _count(self, task: Any) -> int:
        """Items of a task within the limit."""
        return min(len(task.eval_docs), self.settings.limit or len(task.eval_docs))

    def _fitting(self, task: Any, lm: Any) -> list[int]:
        """Numbers of the items that can be scored: lm-eval aborts on an answer that exceeds the context.

        Raises:
            UserError: none can.
        """
        fitting = []
        for number, document in zip(range(self._count(task)), task.eval_docs):
            long = [text for text in _scored_texts(task, document) if len(text.encode()) >= lm.max_length - 1]
            if all(len(ids) < lm.max_length - 1 for ids in tokens_of(long, lm)):
                fitting.append(number)
        if not fitting:
            raise UserError(
                f"'tasks': no item of {task.task_name} fits in a context of {lm.max_length} tokens; leave it out"
            )
        return fitting

    def _run(self, lm: Any, items: list[Any], seed: int, kept: dict[str, list[int]]) -> dict[str, Any]:
        """Run lm-eval once, like its `simple_evaluate`, but without the report on the machine, which takes longer than
        evaluating a small model."""
        from lm_eval import evaluate

        loaded = self.catalog.manager.load(items)
        tasks = loaded["tasks"].values()
        random.seed(0)
        np.random.seed(DEFAULT_SEED)
        torch.manual_seed(DEFAULT_SEED)
        for task in tasks:
            task.set_config("num_fewshot", self.catalog.shots(task.get_config("num_fewshot")))
            task.set_fewshot_seed(seed=seed)
        aggregations = {function.__name__ for task in tasks for function in task.aggregation().values()}
        # lm-eval takes a limit, or the numbers of the items.
        limit, numbers = self.settings.limit, None
        if any(len(kept[task.task_name]) < self._count(task) for task in tasks):
            limit, numbers = None, {task.task_name: kept[task.task_name] for task in tasks}
        with quiet():
            return evaluate(
                lm,
                loaded,
                limit=limit,
                samples=numbers,
                bootstrap_iters=0 if aggregations <= _CLOSED_FORM else _BOOTSTRAP,
                apply_chat_template=self.settings.apply_chat_template,
                fewshot_as_multiturn=True,
                confirm_run_unsafe_code=True,  # `load` accepts only tasks whose code runs in the sandbox
            )


def _is_group(item: Any) -> bool:
    return hasattr(item, "get_all_tasks")


def _members(item: Any) -> list[Any]:
    """The tasks of a group, or the task itself."""
    return item.get_all_tasks() if _is_group(item) else [item]


def _scored_texts(task: Any, document: dict[str, Any]) -> list[str]:
    """The texts whose likelihood is requested; none for generated answers and for texts scored in windows."""
    if task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input:
        return list(map(str, task.doc_to_choice(document)))
    if task.OUTPUT_TYPE in ("multiple_choice", "loglikelihood"):
        return [str(task.doc_to_target(document))]
    return []
