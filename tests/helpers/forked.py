"""The body of a process from `fork_server`: `scratch COMMAND`, half a second after the fork."""

import os
from pathlib import Path


def scratch(arguments: list[str], output: Path, **environment: str) -> None:
    """Run a command with its output in a file; exit with its code."""
    os.environ.update(environment)
    with output.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    from training.cli import main

    raise SystemExit(main(arguments))
