"""Worker processes: tasks are handed out and their results returned in order."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from training.common.errors import UserError

Task, Result = TypeVar("Task"), TypeVar("Result")

_IN_FLIGHT = 2  # tasks a worker may have waiting: enough to be busy, few enough to bound the memory

_state: Any = None  # result of `start` in this worker


class Workers:
    """`with Workers(count, start, *arguments) as workers:`. Each worker calls `start(*arguments)` once and keeps what
    it returns.

    Args:
        count: processes; with 1, or for a single task, this process does the work.
        start: a function of a module, since workers import it anew.
        flag: command-line flag for their number, for error messages.
    """

    def __init__(self, count: int, start: Callable[..., Any], *arguments: Any, flag: str = "--workers"):
        self.count, self.start, self.arguments, self.flag = count, start, arguments, flag
        # Not forked: libraries that have started threads (Rust's, OpenMP's) do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(count, context, _begin, (start, *arguments))  # starts none before it is needed

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Any, Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """`work(state, task)` of every task, in the order of the tasks. Tasks are taken as they are needed.

        Raises:
            UserError: a worker was killed, most likely for its memory.
        """
        tasks = iter(tasks)
        first = list(itertools.islice(tasks, 2))
        if self.count == 1 or len(first) < 2:  # a process would take longer to start
            state = self.start(*self.arguments)
            yield from (work(state, task) for task in itertools.chain(first, tasks))
            return
        waiting: deque[Future] = deque()
        try:
            for task in itertools.chain(first, tasks):
                waiting.append(self.pool.submit(_work, work, task))
                if len(waiting) >= _IN_FLIGHT * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, most likely out of memory; rerun the same command to resume, "
                f"with fewer workers: {self.flag} {max(1, self.count // 2)}"
            ) from None


def _begin(start: Callable[..., Any], *arguments: Any) -> None:
    global _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _state = start(*arguments)


def _die_with_parent() -> None:
    """End this worker if its parent is killed; it would otherwise wait for work forever."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(work: Callable[[Any, Task], Result], task: Task) -> Result:
    return work(_state, task)
