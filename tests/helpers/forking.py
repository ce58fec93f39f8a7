"""A server that has imported the whole package, and from which `scratch` and `trl` fork: they then start at once.

    python tests/helpers/forking.py SOCKET

SOCKET is the number of an inherited socket, which keeps messages apart. A request is the JSON of `arguments` (the
program's name first), `cwd` and `environment`, with the descriptors of stdin, stdout and stderr. The answers are the
process id, and the exit code, once the program has ended.
"""

import importlib
import importlib.metadata
import json
import os
import pkgutil
import signal
import socket
import sys
from pathlib import Path

import training
from training import cli
from training.commands import run

LONGEST_REQUEST = 1 << 20  # bytes
# What `trl COMMAND` reads its options with, before it starts the same script in processes of their own.
TRL_SCRIPTS = ("dpo", "grpo", "reward", "sft")


def import_everything() -> None:
    names = [module.name for module in pkgutil.walk_packages(training.__path__, "training.")]
    for name in [*names, *(f"trl.scripts.{script}" for script in TRL_SCRIPTS)]:
        if not name.endswith("__main__"):
            importlib.import_module(name)


def run_stage(stage: str, path: Path, overrides: list[str]) -> int:
    """As `training.commands.run.run_stage`, with a fork in the place of a new interpreter."""
    sys.stdout.flush()
    if not (child := os.fork()):
        sys.argv = ["scratch", stage, "--config", str(path), *overrides]
        sys.exit(cli.main(sys.argv[1:]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve(requests: socket.socket) -> None:
    while True:
        message, streams, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not message:
            return
        if not (child := os.fork()):
            break
        for stream in streams:
            os.close(stream)
        requests.send(str(child).encode())
        requests.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())

    request = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    requests.close()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    (program,) = importlib.metadata.entry_points(group="console_scripts", name=sys.argv[0])
    sys.exit(program.load()())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import_everything()
    run.run_stage = run_stage
    serve(socket.socket(fileno=int(sys.argv[1])))
