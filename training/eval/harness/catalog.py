"""The tasks of one evaluation: found by name, with their data, and loaded.

A task is one of a folder of task files whose data `scratch prepare` writes, or one of lm-eval's own with its data from
the Hub or from local files (see `local_data`).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from training.common.errors import UserError
from training.eval.harness.code_tasks import CODE_TASKS, check_code_tasks, sandboxed_code_eval
from training.eval.harness.local_data import LocalData, LocalTask
from training.eval.harness.suites import FOLDERS, GROUPS, SUITES, expand
from training.eval.harness.task_files import check_task_data, copy_tasks, local_tasks
from training.stages.recipe import nearest


@dataclass(frozen=True)
class _Group:
    """Tasks that are scored together: those with data, out of `total`."""

    tasks: list[str]
    total: int


class TaskCatalog:
    """Tasks by name, with the files that define them and the data they read.

        catalog = TaskCatalog(["small"], tasks_dir, local=LocalData(folder))
        catalog.find()              # rejects unknown names and missing data
        items = catalog.load()      # lm-eval's task and group objects

    Args:
        names: of tasks, groups and suites.
        tasks_dir: folder of your own task files.
        data: output of `scratch prepare` with the data of those; None if there is none.
        local: folder with the data of lm-eval's own tasks; None to take them from the Hub.
        num_fewshot: solved examples before each item; None for each task's own number.

    Attributes:
        names: what is scored, suites resolved.
        own: those of them that come from `tasks_dir`, with their files.
        manager: lm-eval's task manager, after `load`.
    """

    def __init__(
        self,
        names: list[str],
        tasks_dir: Path,
        data: Path | None = None,
        local: LocalData | None = None,
        num_fewshot: int | None = None,
    ):
        self.names = expand(names)
        self.tasks_dir, self.data, self.local, self.num_fewshot = tasks_dir, data, local, num_fewshot
        self.own: dict[str, Path] = {}
        self.manager: Any = None
        self._folders: list[Path] = []  # folders of lm-eval's task files that are enough for these tasks
        self._found: list[LocalTask] = []
        # Groups that lm-eval does not define like this: our own, and those of which only some tasks have data.
        self._groups = {name: _Group(list(GROUPS[name]), len(GROUPS[name])) for name in self.names if name in GROUPS}
        self._loaded: list[Any] | None = None

    def find(self) -> None:
        """Find every task and its data. Tasks on the Hub's data are loaded right away.

        Raises:
            UserError: no such task, a task's data missing, the Hub out of reach, or no sandbox for a programming task.
        """
        check_code_tasks(self.names)
        known = local_tasks(self.tasks_dir)
        self.own = {name: known[name] for name in self.names if name in known}
        for path in self.own.values():
            check_task_data(path, self.data)
        theirs = [name for name in self.names if name not in self.own]
        if not theirs:
            return
        self._index(theirs, known)
        if self.local:
            self._find_data(theirs)
        else:
            leaves = [leaf for name in theirs for leaf in (GROUPS[name] if name in GROUPS else [name])]
            self._loaded = self._load(self._manager([]), leaves)

    def partial_groups(self) -> dict[str, str]:
        """Groups of which only some tasks have data, with how many, as in "2 of 67"."""
        return {
            name: f"{len(group.tasks)} of {group.total}"
            for name, group in self._groups.items()
            if len(group.tasks) < group.total
        }

    def write(self, folder: Path) -> None:
        """Write the task files and converted data that repeat the scores with the stock program."""
        folder.mkdir(parents=True, exist_ok=True)
        copy_tasks(self.own.values(), self.data, folder)
        for task in self._found:
            task.write(folder)
        for name, group in self._groups.items():
            by_size = [{"metric": "acc", "weight_by_size": True}]
            metrics = by_size if name in GROUPS else self._entries[name].cfg.get("aggregate_metric_list")
            content = {"group": name, "task": group.tasks, "aggregate_metric_list": metrics}
            text = f"# {len(group.tasks)} of {group.total} tasks: those with data\n"
            (folder / f"{name}.yaml").write_text(text + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def load(self) -> list[Any]:
        """lm-eval's task and group objects with their data, in the order of the names.

        Raises:
            UserError: the Hub is out of reach, a copy of the data lacks a split, or a task is requested twice.
        """
        if self._loaded is None or self.own or self._groups:
            with TemporaryDirectory() as folder:  # `datasets` caches what it reads
                self.write(Path(folder))
                self._loaded = self._load(self._manager([Path(folder)]), self.names)
        return self._loaded

    def shots(self, own: int | None) -> int:
        """Few-shot examples for a task whose own number is `own`. A task's own 0 stays 0, as in lm-eval."""
        if own == 0 or self.num_fewshot is None:
            return own or 0
        return self.num_fewshot

    def _index(self, theirs: list[str], known: dict[str, Path]) -> None:
        """Find the definitions of lm-eval's own tasks: in the folders of the suites, or in all folders (slower)."""
        import lm_eval.tasks

        root = Path(lm_eval.tasks.__file__).parent
        self._folders = [root / folder for folder in FOLDERS]
        self._entries = self._manager([]).task_index
        everything = not set(theirs) <= self._entries.keys() | GROUPS.keys()
        if everything:
            self._folders = []
            self._entries = self._manager([], include_defaults=True).task_index
        for name in theirs:
            if name not in self._entries and name not in GROUPS:
                hint = nearest(name, [*SUITES, *GROUPS, *known, *self._entries])
                raise UserError(f"'tasks': no task '{name}' in {self.tasks_dir} or in lm-eval; {hint}")
        if everything:
            self._folders = sorted({folder for name in theirs for folder in self._definition_folders(name)})

    def _manager(self, folders: list[Path], include_defaults: bool = False) -> Any:
        from lm_eval.tasks import TaskManager

        with quiet():
            include = [str(folder) for folder in [*self._folders, *folders]]
            return TaskManager(include_path=include, include_defaults=include_defaults)

    def _members(self, name: str) -> list[str]:
        """The members of a group or tag; none for a task."""
        if name in GROUPS:
            return list(GROUPS[name])
        entry = self._entries[name]
        if entry.kind.name == "TAG":
            return sorted(entry.tags)
        members = entry.cfg["task"] if entry.kind.name == "GROUP" else []
        return [member if isinstance(member, str) else member.get("task") or member["group"] for member in members]

    def _leaves(self, name: str) -> Iterator[str]:
        """The tasks of a group or tag, or the task itself."""
        members = self._members(name)
        if not members:
            yield name
        for member in members:
            yield from self._leaves(member)

    def _definition_folders(self, name: str) -> Iterator[Path]:
        """The folders of the files that define a task or group."""
        if name in self._entries and self._entries[name].yaml_path:
            yield Path(self._entries[name].yaml_path).parent
        for member in self._members(name):
            yield from self._definition_folders(member)

    def _find_data(self, theirs: list[str]) -> None:
        for name in theirs:
            leaves = list(self._leaves(name))
            found = []
            for leaf in leaves:
                entry = self._entries[leaf]
                config = entry.cfg or {}
                task = self.local.task(leaf, Path(entry.yaml_path), config, self.shots(config.get("num_fewshot")))
                if task:
                    found.append(task)
            if not found:
                raise UserError(f"'data_dir': {self.local.folder} has no items of {name}; add them, or remove the task")
            self._found += found
            if len(found) < len(leaves):
                self._groups[name] = _Group([task.task for task in found], len(leaves))

    def _load(self, manager: Any, names: list[str]) -> list[Any]:
        self.manager = manager
        try:
            with quiet(), sandboxed_code_eval() if set(names) & set(CODE_TASKS) else nullcontext():
                loaded = manager.load(names)
        except ValueError as error:
            raise UserError(f"'tasks': {_first_line(error)}") from None
        except KeyError as error:
            where = f" in {self.local.folder}" if self.local else ""
            raise UserError(
                f"'tasks': {', '.join(names)}: the copy of the data{where} lacks the split {error}; copy all of it"
            ) from None
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"'tasks': the data of {', '.join(names)} are not on this machine and the Hub cannot be reached "
                f"({_first_line(error)}); set 'data_dir' to a folder with the data (docs/evaluation.md)"
            ) from None
        top = {name: loaded.get("groups", {}).get(name) or loaded["tasks"].get(name) for name in names}
        tags = [task for name, task in top.items() if task is None for task in self._leaves(name)]
        return [*filter(None, top.values()), *(loaded["tasks"][name] for name in tags)]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's warnings: it prints a dozen lines per model about its defaults."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
