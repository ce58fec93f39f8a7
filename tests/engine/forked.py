"""Real processes of `scratch VERB` that start in half a second: forked from a server that has imported everything."""

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path


def server() -> ForkServerContext:
    """Where to fork from. Give it one thread (OMP_NUM_THREADS) before the first process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.cli", "training.pretrain"])
    return context


def scratch(arguments: list[str], output: Path) -> None:
    """The body of such a process: what it prints goes to a file, and it ends as the command does."""
    with output.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    from training.cli import main

    raise SystemExit(main(arguments))
