"""`scratch VERB`: the table of verbs, and how failures become one line and an exit code."""

import errno
import importlib
import signal
import subprocess
import sys
import time

import pytest

from training import cli
from training.common.errors import UserError
from training.common.signals import Interrupted


def run(monkeypatch, error=None, verb="report"):
    def fake(arguments):
        if error is not None:
            raise error

    monkeypatch.setattr(importlib.import_module(cli.VERBS[verb][0]), "main", fake)
    return cli.main([verb])


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_usage(arguments, capsys):
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb}" in printed for verb in cli.VERBS)
    assert "Start here: scratch run recipes/quickstart" in printed


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_helps(verb, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scratch"])  # `serve` hands it on
    try:
        code = cli.main([verb, "--help"])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert not code and len(captured.out) > 60 and "Traceback" not in captured.err


def test_unknown_verb(capsys):
    assert cli.main(["pretrian"]) == 2
    assert capsys.readouterr().err == "error: unknown verb 'pretrian'; did you mean 'pretrain'?\n"


@pytest.mark.parametrize(
    "error, code, line",
    [
        (None, 0, None),
        (UserError("'data': gone"), 2, "error: 'data': gone"),
        (Interrupted(signal.SIGTERM, "stopped after step 3, saved"), 143, "report: stopped after step 3, saved"),
        (KeyboardInterrupt(), 130, "report: interrupted; the same command goes on or starts again"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "error: no space left on the disk ([Errno 28]"),
        (OSError(errno.EDQUOT, "Over quota"), 1, "error: no space left on the disk"),
        (RuntimeError("I/O error:\nNo space left on device (os error 28)"), 1, "error: no space left on the disk (I/O"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), 1, "error: no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: not allowed to write or read /x"),
        (ModuleNotFoundError("No module named 'trl'", name="trl"), 1, "error: the package 'trl' is not installed; pip"),
    ],
)
def test_failures_are_one_line(error, code, line, monkeypatch, capsys):
    assert run(monkeypatch, error) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (line is not None)
    if line:
        assert lines[0].startswith(line)


def test_a_full_disk_below_another_error_is_seen(monkeypatch, capsys):
    error = RuntimeError("generating the dataset failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert run(monkeypatch, error) == 1
    assert capsys.readouterr().err.startswith("error: no space left on the disk (generating the dataset failed)")


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize("verb", ["pretrain", "sft", "dpo"])
def test_the_door_for_accelerate_launch_explains_as_well(verb, tmp_path):
    """`accelerate launch -m training pretrain` does not come through `scratch`."""
    command = [sys.executable, "-m", "training", verb, "--config", str(tmp_path / "none.yaml")]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr == f"error: {tmp_path / 'none.yaml'}: no such recipe file\n"


def test_ctrl_c_in_a_destructor_is_not_lost(monkeypatch, capsys):
    class Garbage:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def busy(_):
        del_me = Garbage()
        del del_me
        time.sleep(30)

    monkeypatch.setattr(importlib.import_module("training.commands.report"), "main", busy)
    assert cli.main(["report"]) == 130
    assert capsys.readouterr().err.startswith("report: interrupted")


def test_an_interrupted_program_ends_as_a_shell_expects(tmp_path):
    code = "import os, signal; from training import cli; import training.commands.report as r; "
    code += "r.main = lambda _: os.kill(os.getpid(), signal.SIGINT); raise SystemExit(cli.main(['report']))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 130 and process.stderr.startswith("report: interrupted")
