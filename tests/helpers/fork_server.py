"""A server that imports heavy libraries once and forks processes, which then start at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext


@contextmanager
def fork_server(*modules: str) -> Iterator[ForkServerContext]:
    """A server that has imported these modules. It replaces the process's only server, which may have other ones."""
    forkserver._forkserver._stop()
    context = get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    try:
        yield context
    finally:
        forkserver._forkserver._stop()
