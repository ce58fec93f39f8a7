"""The body of a process that `fork_server` makes: it is `scratch VERB`, half a second after the fork."""

import os
from pathlib import Path


def scratch(arguments: list[str], output: Path) -> None:
    """What it prints goes to a file, and it ends as the command does."""
    with output.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    from training.cli import main

    raise SystemExit(main(arguments))
