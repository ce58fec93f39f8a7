"""Runs as their files show them: running, finished, stopped, failed, killed; and which of a folder are shown."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from messages import refused

from training.common.metrics import json_line
from training.stages.lock import LOCK, at_work, find_holder
from training.stages.provenance import staging_dir
from training.stages.stage import Stage
from training.watching.figures import Figures
from training.watching.run import Run, State, sample_text
from training.watching.watch import Watch
from training.watching.words import last_line, line_of, progress_of, state_of

RECORD = {"tokens": 100, "seconds": 2.0, "loss": 3.0, "bits_per_byte": 1.5, "learning_rate": 0.01, "grad_norm": 1.0}
RECORD |= {"tokens_per_second": 50, "mfu": 0.25}
KILLED = """
import os, signal, sys
from training.stages.stage import Stage
stage = Stage("pretrain", sys.argv[1], {"max_steps": 10}, {}, [])
(stage.begin() / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\\n')
os.kill(os.getpid(), signal.SIGKILL)
"""


def begin(target: Path, name: str = "pretrain", recipe: dict | None = None) -> Stage:
    stage = Stage(name, str(target), {"max_steps": 10} if recipe is None else recipe, {}, [])
    stage.begin()
    return stage


def log(folder: Path, *records: dict, name: str = "metrics.jsonl") -> None:
    with (folder / name).open("a") as stream:
        stream.writelines(map(json_line, records))


def finish(stage: Stage) -> None:
    stage.finish({}, wrote="model")


def complete(target: Path, name: str = "pretrain", losses: tuple[float, ...] = (3.0, 2.0)) -> None:
    stage = begin(target, name)
    log(stage.folder, *({"step": step, "loss": loss} for step, loss in enumerate(losses, start=1)))
    finish(stage)


def seen(target: Path) -> Run:
    run = Run(target)
    run.refresh()
    return run


def test_a_run_from_its_first_step_to_its_final_place(tmp_path):
    stage = begin(tmp_path / "run")
    run = seen(tmp_path / "run")
    assert run.state is State.RUNNING and run.stage == "pretrain" and run.holder.pid == os.getpid()
    assert progress_of(run, time.time()) == "step 0/10"
    log(stage.folder, {"step": 0, "threads": 2}, RECORD | {"step": 2})
    log(stage.folder, {"step": 2, "validation_loss": 3.5})
    run.refresh()
    assert [record["step"] for record in run.new] == [0, 2, 2]
    assert run.figures.losses == [(2, 3.0)] and run.figures.validations == [(2, 3.5)]
    log(stage.folder, RECORD | {"step": 4, "loss": None}, RECORD | {"step": 6, "loss": 2.5})
    finish(stage)
    run.refresh()
    assert run.state is State.FINISHED and run.figures.losses == [(2, 3.0), (6, 2.5)]
    assert last_line(run).startswith(
        "finished in 0:00; step 6/10, loss 2.500, bits/byte 1.500, validation 3.500 at step 2"
    )
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize(
    "kind, reason, state, said",
    [
        ("stopped", "stopped after step 4, saved", State.STOPPED, "stopped after step 4, saved"),
        ("stopped", "interrupted", State.STOPPED, "stopped: interrupted"),
        ("mistake", "step 5 has a loss of nan", State.FAILED, "failed: step 5 has a loss of nan"),
        ("failure", "no space\nleft \x1b[2J", State.FAILED, "failed: no space left ␛[2J"),
    ],
)
def test_why_a_run_ended_unfinished(tmp_path, kind, reason, state, said):
    begin(tmp_path / "run")
    Stage.note_end(kind, reason)
    run = seen(tmp_path / "run")
    assert run.state is state and run.state.unfinished and state_of(run, 0) == said
    Stage.begun.lock.close()
    begin(tmp_path / "run")  # the same command resumes it
    run.refresh()
    assert run.state is State.RUNNING


def test_the_record_of_a_finished_run_stays(tmp_path):
    complete(tmp_path / "run")
    Stage.note_end("failure", "the disk was full later")
    assert seen(tmp_path / "run").state is State.FINISHED


def test_a_killed_run_and_its_resumption(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "run"], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    run = seen(tmp_path / "run")
    assert run.state is State.KILLED and run.figures.losses == [(1, 2.0)]
    assert find_holder(staging_dir(tmp_path / "run")).alive is False
    stage = begin(tmp_path / "run")
    (stage.folder / "metrics.jsonl").write_text("")  # it had no checkpoint
    log(stage.folder, RECORD | {"step": 1, "loss": 1.0})
    run.refresh()
    assert run.state is State.RUNNING and run.figures.losses == [(1, 1.0)]


def test_a_run_that_was_deleted_has_not_finished(tmp_path):
    begin(tmp_path / "run")
    watch = Watch.open([str(tmp_path / "run")])
    shutil.rmtree(tmp_path / "run.partial")
    watch.refresh()
    assert watch.over and not watch.runs and not watch.succeeded


def test_a_run_on_another_machine(tmp_path):
    """Whether it was killed cannot be seen from here; its news can."""
    stage = begin(tmp_path / "run")
    (stage.folder / LOCK).write_text("123 another host\n")
    log(stage.folder, RECORD | {"step": 1})
    run = seen(tmp_path / "run")
    assert run.state is State.ELSEWHERE and not run.state.over
    assert state_of(run, run.figures.marks[-1].when + 65) == "on another host, last news 1:05 ago"


@pytest.mark.parametrize("text", ["", "12", "x y", "\xff"])
def test_a_lock_that_says_nothing(tmp_path, text):
    (tmp_path / LOCK).write_text(text, encoding="latin-1")
    assert find_holder(tmp_path) is None


def test_a_process_that_got_the_number_of_a_dead_one(tmp_path):
    stage = begin(tmp_path / "run")
    os.utime(stage.folder / LOCK, (1e9, 1e9))  # long before this process began
    assert seen(tmp_path / "run").state is State.KILLED


def test_steps_time_left_and_rate_of_a_tuning_run():
    """TRL logs neither times nor, with epochs, the number of steps."""
    figures = Figures()
    figures.add([{"step": 10, "loss": 2.0, "epoch": 0.25, "num_tokens": 1000.0}], when=100.0)
    assert figures.total_steps(-1, 3.0) == 120 and figures.total_steps(50, 3.0) == 50
    assert figures.seconds_left(120, now=100.0) is None and figures.tokens_per_second() is None
    figures.add([{"step": 20, "loss": 2.0, "epoch": 0.5, "num_tokens": 3000.0}], when=120.0)
    assert figures.seconds_per_step() == 2.0 and figures.tokens_per_second() == 100.0
    assert figures.seconds_left(120, now=125.0) == 195.0


def test_the_time_left_of_pretraining_before_it_was_watched():
    figures = Figures()
    figures.add([RECORD | {"step": 4, "seconds": 20.0}], when=0.0)
    assert figures.seconds_left(10, now=0.0) == 30.0 and figures.tokens_per_second() == 50


def test_the_epochs_of_a_recipe_or_those_of_trl(tmp_path):
    for name, recipe, total in (("sft", {}, 60), ("dpo", {"num_train_epochs": 2}, 40), ("classify", {}, None)):
        stage = begin(tmp_path / name, name, recipe)
        log(stage.folder, {"step": 5, "loss": 1.0, "epoch": 0.25})
        assert seen(tmp_path / name).total_steps == total


def test_samples_heads_and_incidents(tmp_path):
    stage = begin(tmp_path / "run")
    run = seen(tmp_path / "run")
    log(stage.folder, *({"step": step, "prompt": "a", "text": f"a {step}"} for step in (3, 6, 6)), name="samples.jsonl")
    log(stage.folder, {"step": 5, "incident": "spike"}, name="incidents.jsonl")
    (stage.folder / "insight").mkdir()
    rows = [
        {"step": step, "layer": layer, "head": head, "probe": probe, "induction": step / 10 + layer / 100 + head / 1000}
        for step in (1, 4)
        for layer in (0, 1)
        for head in (0, 1)
        for probe in ("repeated", "held_out")
    ]
    log(stage.folder / "insight", *rows, name="heads.jsonl")
    run.refresh()
    assert run.samples == ["a 6", "a 6"] and run.samples_step == 6
    assert (run.incidents, run.incident) == (1, "spike at step 5")
    best = run.strongest("repeated", "induction", 2)
    assert run.heads_step == 4 and [(score.layer, score.head) for score in best] == [(1, 1), (1, 0)]


def test_completions_of_the_newest_step(tmp_path):
    stage = begin(tmp_path / "run", "grpo")
    (stage.folder / "trainer" / "samples").mkdir(parents=True)
    for step in (5, 10):
        log(
            stage.folder,
            {"step": step, "prompt": "1+1=", "completion": str(step)},
            name=f"trainer/samples/{step:09}.jsonl",
        )
    assert seen(tmp_path / "run").samples == ["1+1=10"]


@pytest.mark.parametrize(
    "record, text",
    [
        ({"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}, "Q\nA"),
        ({"prompt": [], "completion": None}, "\n"),
        ({}, ""),
    ],
    ids=["conversation", "damaged", "empty"],
)
def test_the_text_of_a_sample(record, text):
    assert sample_text(record) == text


def test_a_record_as_a_line(tmp_path):
    run = seen_with(tmp_path, "pretrain")
    assert line_of(run, RECORD | {"step": 2}) == (
        "step 2/10: loss 3.000, 1.500 bits/byte, lr 0.01, 50 tokens/s, MFU 25%"
    )
    assert line_of(run, {"step": 2, "validation_loss": 3.25}) == "step 2: validation loss 3.250"
    assert line_of(run, {"step": 2, "threads": 2}) is None and line_of(run, {}) is None
    run = seen_with(tmp_path, "dpo")
    margin = {"step": 2, "loss": 0.5, "rewards/margins": 0.25, "rewards/accuracies": 0.75}
    assert line_of(run, margin) == "step 2/10: loss 0.500, margin 0.250, accuracy 75%"


def seen_with(place: Path, name: str) -> Run:
    begin(place / name, name)
    return seen(place / name)


class TestFolders:
    """Which runs of a folder are shown."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        complete(tmp_path / "runs" / "old" / "pretrain")
        old = tmp_path / "runs" / "old" / "pretrain" / "provenance.json"
        os.utime(old, (1e9, 1e9))
        complete(tmp_path / "runs" / "new" / "pretrain")
        complete(tmp_path / "runs" / "new" / "sft", "sft")
        complete(tmp_path / "runs" / "new" / "evaluate", "evaluate")
        return tmp_path / "runs"

    @pytest.mark.parametrize(
        "named, shown",
        [
            (["runs"], ["runs/new/pretrain", "runs/new/sft"]),
            (["runs/new/"], ["runs/new/pretrain", "runs/new/sft"]),
            (["runs/old"], ["runs/old/pretrain"]),
            (["runs/old/pretrain", "runs/new/sft", "runs/old"], ["runs/old/pretrain", "runs/new/sft"]),
        ],
        ids=["all", "newest", "older", "several"],
    )
    def test_finished_runs(self, named, shown):
        watch = Watch.open(named)
        assert list(watch.runs) == shown and watch.over and watch.succeeded

    def test_the_stage_that_runs_and_the_one_after_it(self, place):
        with at_work(place / "new"):
            watch = Watch.open(["runs"])
            assert list(watch.runs) == ["runs/new/sft"] and not watch.over  # the next stage is about to begin
            stage = begin(place / "new" / "dpo", "dpo")
            watch.refresh()
            assert list(watch.runs) == ["runs/new/dpo"]
            log(stage.folder, {"step": 1, "loss": 0.5})
            watch.refresh()
            assert [record["step"] for record in watch.runs["runs/new/dpo"].new] == [1]
            finish(stage)
            watch.refresh()
            assert list(watch.runs) == ["runs/new/dpo"] and not watch.over
        watch.refresh()
        assert watch.over and list(watch.runs) == [f"runs/new/{stage}" for stage in ("pretrain", "sft", "dpo")]

    def test_a_run_without_a_stage_yet(self, place):
        with at_work(place / "first"):
            watch = Watch.open(["runs/first"])
            assert not watch.runs and not watch.over
        assert not (place / "first").exists()

    def test_a_stage_that_failed_is_shown_whatever_it_does(self, place):
        stage = begin(place / "new" / "export", "export")
        Stage.note_end("failure", "no space left")
        watch = Watch.open(["runs/new"])
        assert list(watch.runs)[-1] == "runs/new/export" and watch.over and not watch.succeeded
        stage.lock.close()

    def test_a_working_folder_is_its_run(self, place):
        begin(place / "mine")
        assert list(Watch.open(["runs/mine.partial"]).runs) == ["runs/mine"]

    @pytest.mark.parametrize(
        "path, fact",
        [
            ("runs/nowhere", "no such folder"),
            ("runs/new/evaluate", "evaluate"),
            ("runs/empty", "no training run"),
            ("runs/note.txt", "a file"),
        ],
    )
    def test_what_is_no_run(self, place, path, fact):
        (place / "empty").mkdir()
        (place / "note.txt").write_text("x")
        with refused("runs", path, fact):
            Watch.open([path])


def test_the_folder_of_work_is_removed_if_nothing_came_of_it(tmp_path):
    with at_work(tmp_path / "a" / "b"):
        assert find_holder(tmp_path / "a" / "b").alive
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").write_text("a file")
    with at_work(tmp_path / "a" / "b"):
        pass
    with at_work(tmp_path):
        pass
    assert tmp_path.exists() and not (tmp_path / LOCK).exists()


def test_records_are_json(tmp_path):
    stage = begin(tmp_path / "run")
    Stage.note_end("stopped", "x")
    assert json.loads((stage.folder / "provenance.json").read_text())["ended"] == {"kind": "stopped", "reason": "x"}
