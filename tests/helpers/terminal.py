"""How tests of whole commands run them, and the options of a main job that takes under a minute."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import IO

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SAVED = "Model saved to"  # the last words of `trl`
LONGEST_END = 15  # seconds from them to its end

# The main job with its sizes cut down: every stage really runs, none has time to learn much.
SMALL = {
    "data.max_bytes": 800_000,
    "vocab_size": 512,
    "tokenizer.max_bytes": 200_000,
    "instructions.train": 48,
    "instructions.validation": 16,
    "preferences.train": 32,
    "preferences.validation": 16,
    "prepare.tasks": 24,
    "model.hidden_size": 64,
    "model.num_hidden_layers": 2,
    "global_batch_size": 8,
    "pretrain.per_device_train_batch_size": 4,
    "pretrain.max_steps": 6,
    "pretrain.logging_steps": 1,
    "pretrain.eval_steps": 3,
    "pretrain.save_steps": 2,
    "sft.max_steps": 2,
    "sft.warmup_steps": 0,
    "dpo.max_steps": 2,
    "dpo.warmup_steps": 0,
    "limits.chats": 4,
    "limits.pairs": 8,
    "max_new_tokens": 16,
}


def flags(options: dict[str, object]) -> list[str]:
    return [f"--{key}={value}" for key, value in options.items()]


# How commands of ours begin.
SCRATCH = ([sys.executable, "-m", "training"], [str(Path(sys.executable).with_name("scratch"))])


def program(name: str) -> Path:
    """A program of the environment that the tests run in."""
    return Path(sys.executable).with_name(name)


def end(pid: int) -> None:
    """Kill a process and all that it has started; a launcher's workers have sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        children = parent.children(recursive=True)
        parent.kill()
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class Forked:
    """A process of forking.py, with the methods of `subprocess.Popen` that are needed."""

    def __init__(self, server: socket.socket):
        self.server, self.pid, self.returncode = server, int(server.recv(16)), None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.server], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(self.server.recv(16))
        return self.returncode


class Terminal:
    """Runs programs as a person would, offline, with a home of its own for what libraries cache."""

    def __init__(self, home: Path):
        self.home = home
        self._server: socket.socket | None = None  # of forking.py, once one is needed

    def close(self) -> None:
        """End the server of forking.py."""
        if self._server:
            self._server.close()
            self._server_process.wait()

    def environment(self, **extra: str | None) -> dict[str, str]:
        """The environment of a program; a variable given as None is absent from it."""
        own = {
            "HF_HOME": str(self.home),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": None,
            "HF_ENDPOINT": None,
            "TQDM_DISABLE": "1",
            "OMP_NUM_THREADS": "1",  # models this small are slower on several threads
            "PYTHONPATH": str(ROOT),  # the tests also run where the package is not installed
        }
        variables = {**os.environ, **own, **extra}
        return {name: value for name, value in variables.items() if value is not None}

    def run(
        self, command: list[object], cwd: Path, fails: bool = False, input: str | None = None, **extra: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; the test fails if the program does, unless `fails`.

        `scratch` in the usual environment is forked from a process that has imported everything, which saves five
        seconds a stage. Any other program, and any other environment, gets a new interpreter.
        """
        words = [str(part) for part in command]
        beginning = next((start for start in SCRATCH if words[: len(start)] == start), None)
        if beginning and not extra:
            with contextlib.ExitStack() as stack:
                streams = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
                streams[0].write(input or "")
                streams[0].seek(0)
                code = self._fork(["scratch", *words[len(beginning) :]], cwd, streams).wait()
                for stream in streams:
                    stream.seek(0)
                done = subprocess.CompletedProcess(words, code, streams[1].read(), streams[2].read())
        else:
            environment = self.environment(**extra)
            done = subprocess.run(words, cwd=cwd, env=environment, input=input, capture_output=True, text=True)
        if bool(done.returncode) is not fails:
            printed = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            pytest.fail(f"{command} in {cwd} ended with {done.returncode}\n{printed}")
        return done

    def train_with_trl(self, arguments: list[object], cwd: Path, **extra: str | None) -> str:
        """Run `trl`, whose last words are where it saved the model, and return what it printed.

        The command that reads the options is forked; the processes that train are new. Where one of several gives its
        process group up before its model, PyTorch may hang (training/common/processes.py). So with the last words it
        is done, and has a few seconds to end by itself.
        """
        said, seconds = self.home / f"said-{uuid.uuid4().hex}.txt", 0.0
        with said.open("w") as output, open(os.devnull) as nothing:
            words = ["trl", *(str(part) for part in arguments)]
            child = self._fork(words, cwd, [nothing, output, output], **extra)
            try:
                while child.poll() is None and seconds < LONGEST_END:
                    time.sleep(0.5)
                    if SAVED in said.read_text(errors="replace"):
                        seconds += 0.5
            finally:
                if hangs := child.poll() is None:
                    end(child.pid)
                    child.wait()
        printed = said.read_text(errors="replace")
        if not hangs and child.returncode:
            pytest.fail(f"{words} in {cwd} ended with {child.returncode}\n{printed[-6000:]}")
        assert SAVED in printed
        return printed

    def scratch(self, *arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
        """`scratch VERB ...`, as `run` runs it."""
        return self.run([*SCRATCH[0], *arguments], cwd, **options)

    def _fork(self, arguments: list[str], cwd: Path, streams: list[IO[str]], **extra: str | None) -> "Forked":
        """A program of forking.py, whose server starts with the first one."""
        if self._server is None:
            self._server, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            script = [sys.executable, Path(__file__).with_name("forking.py"), str(other_end.fileno())]
            self._server_process = subprocess.Popen(script, env=self.environment(), pass_fds=[other_end.fileno()])
            other_end.close()
        request = {"arguments": arguments, "cwd": str(cwd), "environment": self.environment(**extra)}
        descriptors = [stream.fileno() for stream in streams]
        socket.send_fds(self._server, [json.dumps(request).encode()], descriptors)
        return Forked(self._server)

    def start(self, command: list[object], cwd: Path, log: Path, **extra: str | None) -> subprocess.Popen[str]:
        """Start a program in a process group of its own, its output going to the file `log`."""
        with log.open("w") as output:
            return subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=self.environment(**extra),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                process_group=0,
            )
