"""`scratch watch` as a person uses it: lines in a pipe, a screen that follows the terminal, and how it ends."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from messages import refused
from tiny_stages import MODEL, flags, forget_accelerate, write_data, write_tokenizer
from typist import Typist

from training.commands import pretrain, watch
from training.common.metrics import json_line
from training.stages.stage import Stage

ROOT = Path(__file__).parents[2]
WATCH = [sys.executable, "-m", "training", "watch"]
OPTIONS = {
    **{f"model.{key}": value for key, value in MODEL.items()},
    "bf16": "false",
    "max_steps": 6,
    "sequence_length": 16,
    "global_batch_size": 2,
    "per_device_train_batch_size": 2,
    "logging_steps": 2,
    "eval_steps": 3,
    "eval_sequences": 2,
    "save_steps": 6,
    "sample_prompts": "[the cat]",
    "sample_tokens": 4,
}


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONUTF8": "1"} | extra


def begin(target: Path) -> Stage:
    stage = Stage("pretrain", str(target), {"max_steps": 4}, {}, [])
    stage.begin()
    return stage


def log(stage: Stage, step: int) -> None:
    with (stage.folder / "metrics.jsonl").open("a") as stream:
        stream.write(json_line({"step": step, "loss": 4.0 - step, "learning_rate": 0.01}))


@pytest.mark.parametrize(
    "arguments, key, fact", [([], "runs", "missing"), (["nowhere"], "runs", "no such folder"), (["."], "runs", "run")]
)
def test_bad_input(tmp_path, monkeypatch, arguments, key, fact):
    monkeypatch.chdir(tmp_path)
    with refused(key, fact):
        watch.main(arguments)


def test_lines_in_a_pipe(tmp_path, monkeypatch, capsys):
    """The newest record first, then each new one, and how the run ended."""
    stage = begin(tmp_path / "run")
    log(stage, 1)
    log(stage, 2)
    work = iter([lambda: log(stage, 3), lambda: None, lambda: (log(stage, 4), stage.finish({}, wrote="model"))])
    monkeypatch.setattr(time, "sleep", lambda _: next(work)())
    with pytest.raises(SystemExit) as ended:
        watch.main([str(tmp_path / "run")])
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("pretrain")]
    name = str(tmp_path / "run")
    assert ended.value.code == 0
    assert lines[:3] == [f"{name}: step {step}/4: loss {4.0 - step:.3f}, lr 0.01" for step in (2, 3, 4)]
    assert len(lines) == 4 and lines[3].startswith(f"{name}: finished in 0:00; step 4/4, loss 0.000")


def test_a_run_that_failed(tmp_path, capsys):
    begin(tmp_path / "run")
    Stage.note_end("failure", "no space left on the disk")
    with pytest.raises(SystemExit) as ended:
        watch.main([str(tmp_path / "run")])
    assert ended.value.code == 1
    assert capsys.readouterr().out == f"{tmp_path}/run: failed: no space left on the disk; step 0/4\n"


def resize(typist: Typist, rows: int, columns: int) -> None:
    fcntl.ioctl(typist.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_screen_that_follows_run_and_terminal(tmp_path):
    stage = begin(tmp_path / "run")
    log(stage, 1)
    typist = Typist([*WATCH, "run"], tmp_path, environment())
    resize(typist, 12, 60)
    assert "\x1b[?1049h" in typist.read_until("step 1/4")  # the alternate screen
    typist.read_until("q leaves")
    resize(typist, 10, 40)
    narrow = typist.read_until(r"\x1b\[H.*?q leaves")
    assert "step 1/4" in narrow and narrow.count("\n") == 9
    log(stage, 3)
    typist.read_until("step 3/4.*loss.*1.000")
    stage.finish({}, wrote="model")
    assert "\x1b[?25h" in typist.read_until("run: finished in .*step 3/4, loss 1.000")  # the cursor is there again
    assert typist.wait() == 0


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "ctrl-c"])
def test_it_leaves_at_once_and_the_run_goes_on(tmp_path, key):
    stage = begin(tmp_path / "run")
    log(stage, 1)
    before = sorted(path.name for path in stage.folder.iterdir())
    typist = Typist([*WATCH, "run"], tmp_path, environment(NO_COLOR="1"))
    seen = typist.read_until("q leaves")
    assert "\x1b[3" not in seen  # no colours
    pressed = time.monotonic()
    typist.type(key)
    assert "\x1b[?1049l" in typist.read_until(r"\x1b\[\?25h")
    assert typist.wait() == 0 and time.monotonic() - pressed < 10
    assert sorted(path.name for path in stage.folder.iterdir()) == before
    stage.finish({}, wrote="model")


@pytest.mark.slow
def test_a_real_pretraining(tmp_path):
    """Watched by another process, which prints the last record at least, however fast the run is."""
    forget_accelerate()
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    inputs = {"data": write_data(tmp_path / "data", tokenizer), "tokenizer": tokenizer}
    began, output = tmp_path / "began", tmp_path / "run"
    watching: list[subprocess.Popen] = []
    begin_stage = Stage.begin

    def begin_and_watch(stage: Stage, **options: object) -> Path:
        folder = begin_stage(stage, **options)
        command = [*WATCH, str(output)]
        watching.append(subprocess.Popen(command, env=environment(), stdout=began.open("w"), text=True))
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "begin", begin_and_watch)
        pretrain.main(flags(OPTIONS | inputs | {"output_dir": output}))
    assert watching[0].wait(timeout=60) == 0
    last = began.read_text().splitlines()[-1]
    assert last.startswith(f"{output}: finished in ") and "step 6/6, loss " in last and "validation " in last
    samples = (output / "samples.jsonl").read_text()
    assert '"step": 3, "prompt": "the cat", "text": "the cat' in samples and samples.count("\n") == 2
