"""A server that has imported heavy libraries once, and forks processes that then start in no time."""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext


@contextmanager
def fork_server(*modules: str) -> Iterator[ForkServerContext]:
    """With these modules and no others: a process has one server, which whoever came first has filled."""
    forkserver._forkserver._stop()
    context = get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    try:
        yield context
    finally:
        forkserver._forkserver._stop()
