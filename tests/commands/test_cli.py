"""`scratch COMMAND`: the table of commands, and how failures become one line and an exit code."""

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

    monkeypatch.setattr(importlib.import_module(cli.COMMANDS[verb][0]), "main", fake)
    return cli.main([verb])


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_usage(arguments, capsys):
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in cli.COMMANDS)
    groups = [line for line in printed.splitlines() if line in cli.GROUPS]
    assert groups == ["Start", "Data", "Train", "Fine-tune", "Use"]
    assert "Start here: scratch run recipes/quickstart" in printed


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_every_verb_helps(verb, capsys):
    try:
        code = cli.main([verb, "--help"])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert not code and len(captured.out) > 60 and "Traceback" not in captured.err


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag, capsys):
    assert cli.main([flag]) == 0
    assert capsys.readouterr().out.startswith("scratch ")


def test_the_reader_of_the_output_may_close_it(tmp_path):
    """As `scratch --help | head -1` does."""
    process = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m training serve --help | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
    )
    assert process.returncode in (0, 141) and process.stderr == ""


def test_unknown_command(capsys):
    assert cli.main(["pretrian"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'pretrian'; did you mean 'pretrain'?\n"


@pytest.mark.parametrize(
    "error, code, line",
    [
        (None, 0, None),
        (UserError("'data': gone"), 2, "error: 'data': gone"),
        (Interrupted(signal.SIGTERM, "stopped after step 3, saved"), 143, "report: stopped after step 3, saved"),
        (KeyboardInterrupt(), 130, "report: interrupted; run the same command to resume"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "error: no space left on the disk ([Errno 28]"),
        (OSError(errno.EDQUOT, "Over quota"), 1, "error: no space left on the disk"),
        (RuntimeError("I/O error:\nNo space left on device (os error 28)"), 1, "error: no space left on the disk (I/O"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), 1, "error: no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: permission denied: /x"),
        (OSError(errno.EROFS, "Read-only file system", "x"), 1, "error: the disk is read-only ([Errno 30]"),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), 1, "error: the disk is read-only (I/O"),
    ],
)
def test_failures_are_one_line(error, code, line, monkeypatch, capsys):
    assert run(monkeypatch, error) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (line is not None)
    if line:
        assert lines[0].startswith(line)


@pytest.mark.parametrize("value, advice", [("true", "command without --restart"), ("false", "command to resume")])
def test_the_advice_after_ctrl_c(value, advice, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("training.commands.report"), "main", interrupted)
    assert cli.main(["report", "--restart", value]) == 130
    assert f"run the same {advice}" in capsys.readouterr().err


@pytest.mark.parametrize("module, remedy", [("trl", 'pip install -e ".[train]"'), ("x_y.z", "pip install x-y")])
def test_a_missing_package_is_named_with_its_extra(module, remedy, monkeypatch, capsys):
    assert run(monkeypatch, ModuleNotFoundError(f"No module named '{module}'", name=module)) == 1
    assert capsys.readouterr().err == f"error: the package '{module}' is not installed; {remedy}\n"


def test_a_full_disk_below_another_error_is_seen(monkeypatch, capsys):
    error = RuntimeError("generating the dataset failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert run(monkeypatch, error) == 1
    assert capsys.readouterr().err.startswith("error: no space left on the disk (generating the dataset failed)")


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize("verb", ["pretrain", "sft", "dpo"])
def test_launchers_start_commands_as_a_module(verb, tmp_path):
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
