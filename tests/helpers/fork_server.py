"""A server that imports heavy libraries once and forks processes, which then start at once."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext


@contextmanager
def fork_server(*modules: str) -> Iterator[ForkServerContext]:
    """A server that has imported these modules. It replaces the process's only server, which may have other ones."""
    forkserver._forkserver._stop()
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the server looks for the modules before it is told this path
    context = get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    try:
        yield context
    finally:
        forkserver._forkserver._stop()
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path
