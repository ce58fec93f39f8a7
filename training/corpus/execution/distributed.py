"""Work that is spread over the processors of this machine or of many, by an engine of datatrove.

A *task* is a process that the engine starts, here or on a machine that sees the same folders. The work is dealt out to
the tasks beforehand; each finds its share in a file, leaves what it makes in files, and says nothing else. What is
complete on disk counts, and nothing but that: a task that was killed is dealt out again by the same command.
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

SHARES, ERRORS = "shares", "errors"  # of tasks, by their numbers
_LOOK = 5  # seconds from one look at what is complete to the next
LATE = 60  # seconds after which a network file system shows what another machine wrote


class Cluster:
    """
    Args:
        config: with a `kind`.
        folder: for the shares, logs and errors of tasks; all machines see it at the same path.

    Raises:
        UserError: what starts the tasks is not installed.
    """

    def __init__(self, config: EngineConfig, folder: Path):
        self.config, self.folder = config, folder
        for package in ("datatrove", "ray")[: 2 if config.kind == "ray" else 1]:
            if not importlib.util.find_spec(package):
                raise UserError(
                    f"'engine.kind': {config.kind} needs {package}, which is not installed; {how_to_install(package)}"
                )

    def spread(
        self,
        name: str,
        items: Sequence[Item],
        sizes: Sequence[int],
        work: Callable[[list[Item]], None],
        done: Callable[[Item], Any],
    ) -> None:
        """Let tasks do `work(share)` of all items, and wait for them.

        Args:
            name: of the work, for people and files.
            sizes: of the items, by which the shares are made even.
            work: pickled, as are the items.
            done: whether an item is complete on disk.

        Raises:
            UserError: of one of the tasks, or some did not finish.
        """
        if not items:
            return
        from training.corpus.execution import executors

        # A folder for every time that tasks were started; those of the last may be at it still.
        base = self.folder.resolve() / name
        base.mkdir(parents=True, exist_ok=True)
        attempts = sorted(base.iterdir())
        job = executors.submitted(attempts[-1]) if attempts else None
        if job:
            folder = attempts[-1]
        else:
            folder = base / f"{len(attempts):03}"
            shares = deal(items, sizes, self.config.tasks)
            share_out(folder, shares, work)
            print(f"{name}: {len(items):,} parts in {len(shares):,} tasks ({self.config.kind}); logs: {folder}")
        with _progress(name, items, done):
            if not job:
                executors.start(self.config, name, Share(folder, os.getcwd()), len(shares), folder)
                job = executors.submitted(folder)
            if job:
                print(f"{name}: Slurm job {job}; this command waits for it, also if it is stopped and given again")
                executors.wait(job)
        for error in sorted((folder / ERRORS).iterdir()):
            raise UserError(error.read_text())
        missing, deadline = items, time.monotonic() + (0 if self.config.kind == "local" else LATE)
        while (missing := [item for item in missing if not done(item)]) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        if missing:
            raise UserError(
                f"{name}: {len(missing):,} of {len(items):,} parts are not complete; why is in {folder}; the same "
                "command goes on with those"
            )


@dataclass(frozen=True)
class Share:
    """What a task does: its part of the work, which it finds in a file.

    Attributes:
        folder: of `share_out`.
        directory: where the relative paths of a recipe begin.
    """

    folder: Path
    directory: str

    def __call__(self, _: Any, rank: int, world_size: int) -> None:
        os.chdir(self.directory)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task has one core
        items, work = pickle.loads((self.folder / SHARES / f"{rank:05}").read_bytes())
        try:
            work(items)
        except UserError as error:
            (self.folder / ERRORS / f"{rank:05}").write_text(str(error))


def share_out(folder: Path, shares: Sequence[list[Item]], work: Callable[[list[Item]], None]) -> None:
    """Put every share where its task finds it."""
    for name in (SHARES, ERRORS):
        (folder / name).mkdir(parents=True)
    for rank, share in enumerate(shares):
        (folder / SHARES / f"{rank:05}").write_bytes(pickle.dumps((share, work)))


@contextlib.contextmanager
def _progress(name: str, items: Sequence[Item], done: Callable[[Item], Any]) -> Iterator[None]:
    """A bar that counts the complete items while others are at work on them."""
    over = threading.Event()

    def look() -> None:
        missing = deque(items)
        while not over.wait(_LOOK):
            for _ in range(len(missing)):
                item = missing.popleft()
                if done(item):
                    bar.update()
                else:
                    missing.append(item)

    with progress_bar(total=len(items), desc=name, unit=" parts") as bar:
        thread = threading.Thread(target=look)
        if not bar.disable:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.ident:
                thread.join()


def deal(items: Sequence[Item], sizes: Sequence[int], most: int) -> list[list[Item]]:
    """Shares of about the same size, the items of each in order: the largest item goes first, to whom has least."""
    lightest = [(0, number) for number in range(min(most, len(items)))]
    shares: list[list[int]] = [[] for _ in lightest]
    for index in sorted(range(len(items)), key=lambda index: -sizes[index]):
        size, number = lightest[0]
        heapq.heapreplace(lightest, (size + sizes[index], number))
        shares[number].append(index)
    return [[items[index] for index in sorted(share)] for share in shares]
