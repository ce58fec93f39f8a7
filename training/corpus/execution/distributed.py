"""Distributed work: spread over the cores of this machine or of many, by an engine of datatrove.

A *task* is a process that the engine starts, here or on a machine that sees the same folders. The work is assigned to
the tasks beforehand; each reads its assignment from a file and leaves its results in files. Only complete files count:
the work of a killed task is assigned again when the same command is rerun.
"""

import contextlib
import heapq
import importlib.util
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from training.common.errors import UserError
from training.common.packages import how_to_install
from training.common.progress import progress_bar
from training.corpus.execution.config import EngineConfig

Item = TypeVar("Item")

ASSIGNMENTS, ERRORS = "assignments", "errors"  # folders with a file per task, named by its number
_POLL = 5  # seconds between checks for complete items
LATE = 60  # seconds until a network file system shows files that another machine wrote


class Cluster:
    """Runs work as tasks of an engine.

    Args:
        config: with a `kind`.
        folder: for assignments, logs and errors of tasks; all machines see it at the same path.

    Raises:
        UserError: the engine is not installed.
    """

    def __init__(self, config: EngineConfig, folder: Path):
        self.config, self.folder = config, folder
        for package in ("datatrove", "ray")[: 2 if config.kind == "ray" else 1]:
            if not importlib.util.find_spec(package):
                raise UserError(
                    f"'engine.kind': {config.kind} needs {package}, which is not installed; {how_to_install(package)}"
                )

    def run(
        self,
        name: str,
        items: Sequence[Item],
        sizes: Sequence[int],
        work: Callable[[list[Item]], None],
        done: Callable[[Item], Any],
    ) -> None:
        """Let tasks do `work(assignment)` for all items, and wait for them.

        Args:
            name: of the work, for output and file names.
            sizes: of the items, by which the assignments are balanced.
            work: takes a list of items; pickled, as are the items.
            done: whether an item is complete on disk.

        Raises:
            UserError: one that a task raised, or some items are not complete.
        """
        if not items:
            return
        from training.corpus.execution import executors

        # A folder for each time that tasks were started; the last ones may still be running.
        base = self.folder.resolve() / name
        base.mkdir(parents=True, exist_ok=True)
        attempts = sorted(base.iterdir())
        job = executors.submitted(attempts[-1]) if attempts else None
        if job:
            folder = attempts[-1]
        else:
            folder = base / f"{len(attempts):03}"
            assignments = assign(items, sizes, self.config.tasks)
            write_assignments(folder, assignments, work)
            tasks = f"{len(assignments):,} tasks ({self.config.kind})"
            print(f"{name}: {len(items):,} partitions in {tasks}; logs: {folder}")
        with _progress(name, items, done):
            if not job:
                executors.start(self.config, name, Assignment(folder, os.getcwd()), len(assignments), folder)
                job = executors.submitted(folder)
            if job:
                print(f"{name}: Slurm job {job}; this command waits for it; if stopped, rerun it to wait again")
                executors.wait(job)
        for error in sorted((folder / ERRORS).iterdir()):
            raise UserError(error.read_text(encoding="utf-8"))
        missing, deadline = items, time.monotonic() + (0 if self.config.kind == "local" else LATE)
        while (missing := [item for item in missing if not done(item)]) and time.monotonic() < deadline:
            time.sleep(_POLL)
        if missing:
            raise UserError(
                f"{name}: {len(missing):,} of {len(items):,} partitions are not complete; see the logs in {folder}, "
                "then rerun the same command to resume"
            )


@dataclass(frozen=True)
class Assignment:
    """A task's work, read from a file.

    Attributes:
        folder: of `write_assignments`.
        directory: working directory, to which the paths of a recipe are relative.
    """

    folder: Path
    directory: str

    def __call__(self, _: Any, rank: int, world_size: int) -> None:
        os.chdir(self.directory)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task has one core
        items, work = pickle.loads((self.folder / ASSIGNMENTS / f"{rank:05}").read_bytes())
        try:
            work(items)
        except UserError as error:
            (self.folder / ERRORS / f"{rank:05}").write_text(str(error), encoding="utf-8")


def write_assignments(folder: Path, assignments: Sequence[list[Item]], work: Callable[[list[Item]], None]) -> None:
    """Write every assignment to the file from which its task reads it."""
    for name in (ASSIGNMENTS, ERRORS):
        (folder / name).mkdir(parents=True)
    for rank, assignment in enumerate(assignments):
        (folder / ASSIGNMENTS / f"{rank:05}").write_bytes(pickle.dumps((assignment, work)))


@contextlib.contextmanager
def _progress(name: str, items: Sequence[Item], done: Callable[[Item], Any]) -> Iterator[None]:
    """A progress bar that counts complete items while tasks work on them."""
    over = threading.Event()

    def look() -> None:
        missing = deque(items)
        while not over.wait(_POLL):
            for _ in range(len(missing)):
                item = missing.popleft()
                if done(item):
                    bar.update()
                else:
                    missing.append(item)

    with progress_bar(total=len(items), desc=name, unit=" partitions") as bar:
        thread = threading.Thread(target=look)
        if not bar.disable:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.ident:
                thread.join()


def assign(items: Sequence[Item], sizes: Sequence[int], most: int) -> list[list[Item]]:
    """Up to `most` assignments of about the same size, the items of each in order. Items are assigned from the
    largest down, each to the task with the least work."""
    lightest = [(0, number) for number in range(min(most, len(items)))]
    assignments: list[list[int]] = [[] for _ in lightest]
    for index in sorted(range(len(items)), key=lambda index: -sizes[index]):
        size, number = lightest[0]
        heapq.heapreplace(lightest, (size + sizes[index], number))
        assignments[number].append(index)
    return [[items[index] for index in sorted(assignment)] for assignment in assignments]
