"""Task scores by lm-eval, the program most published scores come from.

A task is one of a folder of task files whose data `scratch prepare` writes, or one of lm-eval's own with its data from
the Hub or from local files (see `local_data`). The task files are written beside the results with absolute paths of
their data, so that the stock program repeats the figures from any folder:

    lm_eval --model hf --model_args pretrained=DIR,trust_remote_code=True --include_path OUTPUT/tasks --tasks NAME
"""

import importlib.util
import logging
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.common.recipe import nearest, read_yaml
from training.eval.harness.code_tasks import CODE_TASKS, check_code_tasks, sandboxed_code_eval
from training.eval.harness.local_data import LocalData, LocalTask
from training.eval.harness.suites import FOLDERS, GROUPS, SUITES, expand
from training.eval.harness.task_scores import (
    Scores,
    group_figures,
    item_outcomes,
    mean_outcomes,
    task_figures,
    tokens_of,
)

DEFAULT_SEED = 1234  # lm-eval's own, of drawing few-shot examples
_BOOTSTRAP = 1000  # resamples for metrics such as F1; lm-eval takes 100,000, which is minutes
# Metrics whose standard error follows from the items, without resampling.
_CLOSED_FORM = {"mean", "perplexity", "weighted_perplexity", "bits_per_byte"}


@dataclass(frozen=True)
class Settings:
    """How tasks are put to a model.

    Attributes:
        num_fewshot: solved examples before each item; None for what each task says.
        apply_chat_template: put items as a turn of a conversation.
        limit: items of each task, the first ones; None for all.
        seeds: of drawing the examples.
    """

    num_fewshot: int | None = None
    apply_chat_template: bool = False
    limit: int | None = None
    seeds: tuple[int, ...] = (DEFAULT_SEED,)


@dataclass(frozen=True)
class _Group:
    """Tasks that are scored together, of `total` that there are."""

    tasks: list[str]
    total: int


class Tasks:
    """The tasks of one evaluation, found and with their data seen to be there before any work.

    Args:
        names: of tasks, groups and suites.
        tasks_dir: folder of task files of our own.
        data: the output of `scratch prepare` with the data of those, or None.
        local: folder with the data of lm-eval's own tasks; None to take them from the Hub.

    Attributes:
        names: what is scored, suites resolved.
        ours: those of them that come from `tasks_dir`, with their files.

    Raises:
        UserError: lm-eval not installed, no such task, or a task's data missing.
    """

    def __init__(
        self,
        names: list[str],
        tasks_dir: Path,
        data: Path | None = None,
        local: LocalData | None = None,
        settings: Settings = Settings(),
    ):
        if importlib.util.find_spec("lm_eval") is None:
            raise UserError("'tasks': lm-eval is not installed; `pip install lm-eval`, or give an empty list")
        self.names = expand(names)
        check_code_tasks(self.names)
        self.tasks_dir, self.data, self.settings = tasks_dir, data, settings
        known = local_tasks(tasks_dir)
        self.ours = {name: known[name] for name in self.names if name in known}
        for path in self.ours.values():
            for file in _data_files(path):
                located = _locate(file, data)
                if not located.is_file():
                    raise UserError(f"{path}: its data {located} are missing; run `scratch prepare` first")
        theirs = [name for name in self.names if name not in self.ours]
        self._include: list[Path] = []  # folders of lm-eval's task files that are enough for these tasks
        self._all = False  # or all of lm-eval's
        self.local = local
        self._found: list[LocalTask] = []
        # Groups that lm-eval does not have so: of ours, and those of which only some tasks have data.
        self._groups = {name: _Group(list(GROUPS[name]), len(GROUPS[name])) for name in self.names if name in GROUPS}
        self._loaded: list[Any] | None = None
        self._rooms: dict[str, int] = {}  # tokens that a task lets a model write
        if theirs:
            self._index(theirs, known)
            if self.local:
                self._find_data(theirs)
            else:
                leaves = [leaf for name in theirs for leaf in (GROUPS[name] if name in GROUPS else [name])]
                self._loaded = self._load(self._manager([]), leaves)

    def _index(self, theirs: list[str], known: dict[str, Path]) -> None:
        import lm_eval.tasks

        root = Path(lm_eval.tasks.__file__).parent
        self._include = [root / folder for folder in FOLDERS]
        self._index_of = self._manager([]).task_index
        if not set(theirs) <= self._index_of.keys() | GROUPS.keys():
            self._include, self._all = [], True
            self._index_of = self._manager([]).task_index
        for name in theirs:
            if name not in self._index_of and name not in GROUPS:
                hint = nearest(name, [*SUITES, *GROUPS, *known, *self._index_of])
                raise UserError(f"'tasks': no task '{name}' in {self.tasks_dir} or in lm-eval; {hint}")
        if self._all:
            self._include = sorted({folder for name in theirs for folder in self._folders(name)})
            self._all = False

    def _manager(self, folders: list[Path]) -> Any:
        from lm_eval.tasks import TaskManager

        with quiet():
            include = [str(folder) for folder in [*self._include, *folders]]
            return TaskManager(include_path=include, include_defaults=self._all)

    def _parts(self, name: str) -> list[str]:
        """What a group or tag is made of; nothing for a task."""
        if name in GROUPS:
            return list(GROUPS[name])
        entry = self._index_of[name]
        if entry.kind.name == "TAG":
            return sorted(entry.tags)
        members = entry.cfg["task"] if entry.kind.name == "GROUP" else []
        return [member if isinstance(member, str) else member.get("task") or member["group"] for member in members]

    def _leaves(self, name: str) -> Iterator[str]:
        """The tasks of a group or tag, or the task itself."""
        parts = self._parts(name)
        if not parts:
            yield name
        for part in parts:
            yield from self._leaves(part)

    def _folders(self, name: str) -> Iterator[Path]:
        """The folders of the files that define a task or group."""
        if name in self._index_of and self._index_of[name].yaml_path:
            yield Path(self._index_of[name].yaml_path).parent
        for part in self._parts(name):
            yield from self._folders(part)

    def _find_data(self, theirs: list[str]) -> None:
        for name in theirs:
            leaves = list(self._leaves(name))
            found = []
            for leaf in leaves:
                entry = self._index_of[leaf]
                config = entry.cfg or {}
                task = self.local.task(leaf, Path(entry.yaml_path), config, self._shots(config))
                if task:
                    found.append(task)
            if not found:
                raise UserError(f"'data_dir': {self.local.folder} has no item of {name}")
            self._found += found
            if len(found) < len(leaves):
                self._groups[name] = _Group([task.task for task in found], len(leaves))

    def _shots(self, config: dict[str, Any]) -> int:
        """Examples before each item: what a task sets to 0 stays 0, as in lm-eval."""
        own = config.get("num_fewshot")
        if own == 0 or self.settings.num_fewshot is None:
            return own or 0
        return self.settings.num_fewshot

    @property
    def partial(self) -> dict[str, str]:
        """Groups of which only some tasks have data, with how many."""
        return {
            name: f"{len(group.tasks)} of {group.total}"
            for name, group in self._groups.items()
            if len(group.tasks) < group.total
        }

    def write(self, folder: Path) -> None:
        """Write the task files and converted data that repeat the scores."""
        folder.mkdir(parents=True, exist_ok=True)
        copy_tasks(self.ours.values(), self.data, folder)
        for task in self._found:
            task.write(folder)
        for name, group in self._groups.items():
            own = [{"metric": "acc", "weight_by_size": True}]
            metrics = own if name in GROUPS else self._index_of[name].cfg.get("aggregate_metric_list")
            content = {"group": name, "task": group.tasks, "aggregate_metric_list": metrics}
            text = f"# {len(group.tasks)} of {group.total} tasks: those with data\n"
            (folder / f"{name}.yaml").write_text(text + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def _load(self, manager: Any, names: list[str]) -> list[Any]:
        """Task and group objects, in the order of the names.

        Raises:
            UserError: the Hub is out of reach, or the same task is asked for twice.
        """
        self._task_manager = manager
        try:
            with quiet(), sandboxed_code_eval() if set(names) & set(CODE_TASKS) else nullcontext():
                loaded = manager.load(names)
        except ValueError as error:
            raise UserError(f"'tasks': {_first_line(error)}") from None
        except KeyError as error:
            where = f" in {self.local.folder}" if self.local else ""
            raise UserError(f"'tasks': {', '.join(names)}: a copy of the data{where} lacks the split {error}") from None
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"'tasks': the data of {', '.join(names)} are not on this machine and the Hub cannot be reached "
                f"({_first_line(error)}); give a folder that holds them as 'data_dir', see docs/evaluation.md"
            ) from None
        top = {name: loaded.get("groups", {}).get(name) or loaded["tasks"].get(name) for name in names}
        tags = [task for name, task in top.items() if task is None for task in self._leaves(name)]
        return [*filter(None, top.values()), *(loaded["tasks"][name] for name in tags)]

    def open(self) -> None:
        """Load the tasks with their data.

        Raises:
            UserError: see `_load`; a task that runs what a model writes; seeds that would change nothing.
        """
        if self._loaded is None or self.ours or self._groups:
            with tempfile.TemporaryDirectory() as folder:  # `datasets` copies what it reads
                self.write(Path(folder))
                self._loaded = self._load(self._manager([Path(folder)]), self.names)
        for task in (task for item in self._loaded for task in _members(item)):
            if getattr(task, "UNSAFE_CODE", False) and task.task_name not in CODE_TASKS:
                raise UserError(
                    f"'tasks': lm-eval would run the code that a model writes for {task.task_name} in its own process; "
                    f"of such tasks, {', '.join(CODE_TASKS)} run in a sandbox here; leave the others out"
                )
            if task.OUTPUT_TYPE == "generate_until":
                settings = task.get_config("generation_kwargs") or {}
                self._rooms[task.task_name] = settings.get("max_gen_toks", 256)  # lm-eval's default
        if len(self.settings.seeds) > 1 and not any(map(self._draws_examples, self._loaded)):
            raise UserError(
                "'fewshot_seeds': none of the tasks draws few-shot examples, so that the seeds change nothing"
            )

    def check_lengths(self, context: int, model: str) -> None:
        """Refuse a model whose context leaves no room for what a task lets it write.

        Raises:
            UserError: for the first such task.
        """
        for name, room in self._rooms.items():
            if name not in CODE_TASKS and room >= context:
                raise UserError(
                    f"'tasks': {name} lets a model write {room} tokens, but {model} has a context of {context} in all; "
                    "leave the task out"
                )

    def _shorten_programs(self, context: int) -> None:
        """Leave half of a model's context to the prompt of a task of programming, whose answers may be longer."""
        for task in (task for item in self._loaded for task in _members(item)):
            if task.task_name in CODE_TASKS:
                room = min(self._rooms[task.task_name], context // 2)
                task.set_config("generation_kwargs", {"max_gen_toks": room}, update=True)

    def score(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int, context: int
    ) -> Scores:
        """Run the tasks on a model, with lm-eval's own defaults where `settings` says nothing."""
        from lm_eval.models.huggingface import HFLM

        with quiet():
            lm = HFLM(model, backend="causal", tokenizer=tokenizer, batch_size=batch_size, max_length=context)
        self._shorten_programs(context)
        kept = {task.task_name: self._fitting(task, lm) for item in self._loaded for task in _members(item)}
        first, *more = self.settings.seeds
        runs = [self._run(lm, self._loaded, first, kept)]
        drawing = [item for item in self._loaded if self._draws_examples(item)]
        if drawing:
            runs += [self._run(lm, drawing, seed, kept) for seed in more]
        outcomes = mean_outcomes([item_outcomes(results) for results in runs])
        scores = Scores({}, {}, [outcome for task in outcomes.values() for outcome in task.values()])
        for item in self._loaded:
            tasks = {}
            for task in _members(item):
                name = task.task_name
                left_out = self._count(task) - len(kept[name])
                tasks[name] = task_figures(name, runs, outcomes[name], left_out, lm)
            if _is_group(item) and item.aggregate_metric_list:
                scores.parts[item.name] = tasks
                tasks = {item.name: group_figures(item, runs, tasks)}
            scores.figures.update(tasks)
        return scores

    def _draws_examples(self, item: Any) -> bool:
        """Whether any task of it draws its few-shot examples, rather than take none or always the first ones."""
        from lm_eval.api.samplers import FirstNSampler

        return any(
            self._shots({"num_fewshot": task.get_config("num_fewshot")})
            and not isinstance(getattr(task, "sampler", None), FirstNSampler)
            for task in _members(item)
        )

    def _count(self, task: Any) -> int:
        """Items of a task within the limit."""
        return min(len(task.eval_docs), self.settings.limit or len(task.eval_docs))

    def _fitting(self, task: Any, lm: Any) -> list[int]:
        """Numbers of the items that can be scored: lm-eval breaks off at an answer that does not fit in the context.

        Raises:
            UserError: none can.
        """
        fitting = []
        for number, document in zip(range(self._count(task)), task.eval_docs):
            long = [text for text in _answers(task, document) if len(text.encode()) >= lm.max_length - 1]
            if all(len(ids) < lm.max_length - 1 for ids in tokens_of(long, lm)):
                fitting.append(number)
        if not fitting:
            raise UserError(f"'tasks': no item of {task.task_name} fits in a context of {lm.max_length} tokens")
        return fitting

    def _run(self, lm: Any, items: list[Any], seed: int, kept: dict[str, list[int]]) -> dict[str, Any]:
        """One run of lm-eval. As its `simple_evaluate` does it, without the report on the machine, which takes longer
        than small models do."""
        from lm_eval import evaluate

        loaded = self._task_manager.load(items)
        tasks = loaded["tasks"].values()
        random.seed(0)
        np.random.seed(DEFAULT_SEED)
        torch.manual_seed(DEFAULT_SEED)
        for task in tasks:
            task.set_config("num_fewshot", self._shots({"num_fewshot": task.get_config("num_fewshot")}))
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
                confirm_run_unsafe_code=True,  # `open` lets none through but those that the sandbox runs
            )


@contextmanager
def quiet() -> Iterator[None]:
    """lm-eval warns of every default it takes, a dozen lines a model."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def local_tasks(tasks_dir: Path) -> dict[str, Path]:
    """Task names to task files of a folder."""
    files = {read_yaml(path).get("task"): path for path in sorted(tasks_dir.glob("*.yaml"))}
    return {name: path for name, path in files.items() if isinstance(name, str)}


def copy_tasks(files: Iterable[Path], data: Path | None, destination: Path) -> None:
    """Copy task files, comments and all, with the paths of their data made absolute.

    Args:
        data: the output of `scratch prepare`, see `_locate`.
    """
    destination.mkdir(parents=True, exist_ok=True)
    for path in files:
        text = path.read_text(encoding="utf-8")
        for file in _data_files(path):
            text = text.replace(file, str(_locate(file, data).resolve()))
        (destination / path.name).write_text(text, encoding="utf-8")


def _data_files(path: Path) -> list[str]:
    """The data files a task names; a task on the Hub's data names none."""
    files = (read_yaml(path).get("dataset_kwargs") or {}).get("data_files") or {}
    return list(files.values()) if isinstance(files, dict) else [files]


def _locate(file: str, data: Path | None) -> Path:
    """The data of a task: found by name in `data/tasks`, so that one task file serves every recipe, else as written."""
    if data is None:
        return Path(file)
    prepared = data / "tasks" / Path(file).name
    return Path(file) if Path(file).is_file() and not prepared.is_file() else prepared


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _is_group(item: Any) -> bool:
    return hasattr(item, "get_all_tasks")


def _members(item: Any) -> list[Any]:
    """The tasks of a group, or the task itself."""
    return item.get_all_tasks() if _is_group(item) else [item]


def _answers(task: Any, document: dict[str, Any]) -> list[str]:
    """What a model is asked the likelihood of; nothing where it writes itself or reads a text in windows."""
    if task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input:
        return list(map(str, task.doc_to_choice(document)))
    if task.OUTPUT_TYPE in ("multiple_choice", "loglikelihood"):
        return [str(task.doc_to_target(document))]
    return []
