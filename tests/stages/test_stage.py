"""A stage's folder: written beside, renamed when whole, never lost."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from messages import refused

from training.common.errors import UserError
from training.stages import stage as stage_module
from training.stages.help import command_line
from training.stages.provenance import (
    PROVENANCE,
    RECIPE,
    check_stage,
    digest,
    is_whole,
    read_provenance,
    staging_dir,
    written_by,
)
from training.stages.stage import Stage

ROOT = Path(__file__).parents[2]
RECORDS = {PROVENANCE, PROVENANCE + ".tmp", RECIPE, RECIPE + ".tmp", ".lock"}


def make(folder: Path, name="pretrain", recipe=None, inputs=None, arguments=()) -> Stage:
    return Stage(name, str(folder), recipe or {"seed": 0}, inputs or {}, list(arguments))


def complete(folder: Path, content: str = "weights", **kwargs) -> Stage:
    stage = make(folder, **kwargs)
    (stage.begin() / "model").write_text(content)
    stage.finish({"loss": 1.5}, wrote="model")
    return stage


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "out"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_works_beside_and_renames(out, capsys):
    stage = make(out)
    assert not stage.is_current() and not out.parent.exists()  # nothing is written before begin
    folder = stage.begin()
    assert folder == staging_dir(out) and not out.exists()
    (folder / "model").write_text("weights")
    stage.finish({}, wrote="the model")
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert sorted(path.name for path in out.iterdir()) == ["model", PROVENANCE, RECIPE]
    assert capsys.readouterr().out == f"pretrain: wrote {out} (the model)\n"


def test_skipped_when_current(out, capsys):
    complete(out)
    capsys.readouterr()
    assert make(out).is_current()
    assert capsys.readouterr().out == f"pretrain: {out} is up to date, skipped\n"


@pytest.mark.parametrize("changed", [{"recipe": {"seed": 1}}, {"inputs": {"data": "other"}}])
def test_runs_again_when_something_changed(out, changed):
    complete(out)
    stage = make(out, **changed, arguments=["--restart"])
    assert not stage.is_current()
    folder = stage.begin()
    assert (out / "model").read_text() == "weights"  # the old output stands until the new one is whole
    (folder / "model").write_text("new")
    stage.finish({}, wrote="model")
    assert (out / "model").read_text() == "new" and make(out, **changed).is_current()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_interrupted_work_is_found_again_and_old_output_is_whole(out):
    """What the run will replace was allowed when it began, so that nobody has to repeat it."""
    complete(out)
    before = files(out)
    changed = {"recipe": {"seed": 1}}
    (make(out, **changed, arguments=["--restart"]).begin() / "half").write_text("done")
    assert files(out) == before
    again = make(out, **changed)
    assert not again.is_current() and (again.begin() / "half").read_text() == "done"


@pytest.mark.parametrize("changed", [{"recipe": {"seed": 1}}, {"inputs": {"data": "other"}}])
@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_work_of_another_recipe_goes_only_if_one_says_so(tmp_path, out, state, changed, capsys):
    if state == "finished":
        complete(out)
    else:
        (make(out).begin() / "half").write_text("done")
    before, fact = files(tmp_path), "seed: 0 -> 1" if "recipe" in changed else "inputs changed: data"
    for act in (Stage.is_current, Stage.begin):
        with refused("output_dir", out, state, fact, "--restart"):
            act(make(out, **changed))
    assert files(tmp_path) == before
    capsys.readouterr()
    folder = make(out, **changed, arguments=["--restart=true"]).begin()
    assert not (folder / "half").exists()
    said = capsys.readouterr().out
    assert (f"replaces {out}" in said and fact in said) if state == "finished" else "starting over" in said


def test_a_run_that_failed_before_any_work_is_no_obstacle(out, capsys):
    folder = make(out).begin()
    (folder / "trainer").mkdir()
    (folder / "metrics.jsonl").touch()
    other = make(out, recipe={"seed": 1})
    assert not other.is_current() and other.begin() == folder
    assert capsys.readouterr().out == ""


def test_the_work_of_a_run_that_failed_by_a_mistake_is_no_obstacle(out, capsys):
    """Such as a wrong column: the recipe has to change. What was saved before stays protected."""
    (make(out).begin() / "half").write_text("done")
    Stage.note_end("mistake", "")  # as the command line does
    same = make(out)
    assert not same.is_current() and (same.begin() / "half").exists()
    Stage.note_end("mistake", "")
    other = make(out, recipe={"seed": 1})
    assert not other.is_current() and not (other.begin() / "half").exists()
    assert "failed with another recipe, starting over" in capsys.readouterr().out
    (other.folder / "half").write_text("done")
    other.heartbeat()
    Stage.note_end("mistake", "")
    with refused("output_dir", "interrupted", "seed: 1 -> 0"):
        make(out).begin()


def test_a_mistake_of_a_resumed_run_leaves_the_work_of_earlier_processes_protected(out):
    (make(out).begin() / "half").write_text("done")
    Stage.begun.heartbeat()
    make(out).begin()  # in a new process, which saves nothing
    Stage.note_end("mistake", "")
    with refused("output_dir", "interrupted", "seed: 0 -> 1"):
        make(out, recipe={"seed": 1}).begin()
    assert (staging_dir(out) / "half").exists()


def test_the_owner_of_a_folder_replaces_what_is_finished_and_says_so(out, capsys, monkeypatch):
    complete(out)
    monkeypatch.setenv(stage_module.OWNED, "1")
    stage = make(out, recipe={"seed": 1})
    assert not stage.is_current()
    (stage.begin() / "half").write_text("done")
    assert f"pretrain: replaces {out}, a run of another recipe (seed: 0 -> 1)\n" in capsys.readouterr().out
    with refused("output_dir", "interrupted", "seed: 1 -> 2"):  # but not what is half done
        make(out, recipe={"seed": 2}).is_current()


@pytest.mark.parametrize(
    "arguments, said", [([], "continues {} (seed: 0 -> 1) and keeps half"), (["--restart"], "replaces")]
)
def test_a_run_that_keeps_some_of_a_finished_one(out, arguments, said, capsys):
    complete(out)
    capsys.readouterr()
    stage = Stage("pretrain", str(out), {"seed": 1}, {}, arguments, keeps="half")
    assert not stage.is_current() and stage.begin()
    assert f"pretrain: {said.format(out)}" in capsys.readouterr().out


def test_a_run_that_cannot_keep_any_says_why(out):
    complete(out)
    with refused("output_dir", "seed: 0 -> 1", "--restart", "continued: no checkpoint"):
        Stage("pretrain", str(out), {"seed": 1}, {}, [], obstacle="no checkpoint").is_current()


def test_keys_that_cannot_change_the_output_may_differ(out):
    complete(out, recipe={"seed": 0, "logging_steps": 1, "output_dir": "a"})
    runtime = {"runtime_keys": frozenset({"logging_steps"})}
    stage = Stage("pretrain", str(out), {"seed": 0, "output_dir": "b", "logging_steps": 2}, {}, [], **runtime)
    with refused("output_dir", "seed: 0 -> 1"):
        Stage("pretrain", str(out), {"seed": 1, "output_dir": "b", "logging_steps": 2}, {}, [], **runtime).begin()
    assert stage.folder == staging_dir(out)


def test_a_missing_file_is_named_and_made_again_and_an_edited_one_stays(out, capsys, monkeypatch):
    def stage(*arguments: str) -> Stage:
        return make(out, arguments=arguments)

    work = stage().begin()
    (work / "shards").mkdir()
    for name, content in {"model": "x" * 200_000, "config.json": "{}", "README.md": "card", "shards/0": "a"}.items():
        (work / name).write_text(content)
    (work / "checkpoints").mkdir()
    (work / "checkpoints" / "large").write_text("may go")
    last = stage()
    last.begin()
    last.finish({}, wrote="all", unlisted={"checkpoints"})
    (out / "README.md").write_text("edited by its owner")
    (out / "checkpoints" / "large").unlink()
    (out / "plot.png").touch()
    assert stage().is_current() and digest(out) == last.fingerprint
    for name, content, state in [
        ("model", None, "missing"),
        ("model", "shorter", "changed"),
        ("config.json", "[]", "changed"),
        ("shards/0", None, "missing"),
        ("README.md", None, "missing"),
    ]:
        kept = (out / name).read_bytes()
        (out / name).unlink() if content is None else (out / name).write_text(content)
        if state == "missing":
            with refused("data", out, f"{name} missing", "scratch pretrain"):  # the next stage
                digest(out, "data")
        else:
            assert digest(out, "data") != last.fingerprint
            for owned in (False, True):
                with monkeypatch.context() as patch, refused("output_dir", out, name, "--restart"):
                    if owned:
                        patch.setenv(stage_module.OWNED, "1")
                    stage().is_current()
        capsys.readouterr()
        assert not stage(*([] if state == "missing" else ["--restart"])).is_current()
        assert capsys.readouterr().out == ""
        (out / name).write_bytes(kept)
    (out / "model").unlink()
    (out / "config.json").unlink()
    again = stage()
    (again.begin() / "model").write_text("y")
    assert capsys.readouterr().out == f"pretrain: makes {out} again (config.json and 1 more missing)\n"
    again.finish({}, wrote="all")
    assert stage().is_current()


def test_an_output_that_is_a_link_is_written_where_it_leads(tmp_path):
    disk, link = tmp_path / "disk" / "model", tmp_path / "model"
    disk.parent.mkdir()
    link.symlink_to(disk)  # which does not exist yet
    complete(link)
    complete(link, recipe={"seed": 1}, content="new", arguments=["--restart"])
    assert link.is_symlink() and (disk / "model").read_text() == "new" and make(link, recipe={"seed": 1}).is_current()
    assert os.listdir(disk.parent) == ["model"] and sorted(os.listdir(tmp_path)) == ["disk", "model"]
    make(link, recipe={"seed": 1}, arguments=["--restart"]).begin()
    assert staging_dir(link) == disk.with_name("model.partial") and staging_dir(link).is_dir()


def test_the_root_of_a_disk_cannot_be_an_output(out, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
    with refused("output_dir", out, out / "pretrain"):
        make(out)


def test_all_files_follow_the_umask(out):
    before = os.umask(0o027)
    try:
        stage = make(out)
        (stage.begin() / "below").mkdir()
        for name in ("model.safetensors", "below/state"):
            (stage.folder / name).touch(mode=0o600)
        stage.finish({}, wrote="model")
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in out.rglob("*") if path.is_file()} == {"0o640"}


def test_a_file_whose_permissions_cannot_be_set_is_no_obstacle(out, monkeypatch):
    """It belongs to another user, or the file system has no permissions."""
    tried = []

    def reject(path: Path, mode: int) -> None:
        tried.append(path.name)
        raise PermissionError(1, "Operation not permitted", str(path))

    stage = make(out)
    (stage.begin() / "model").touch(mode=0o600)
    (stage.folder / "config.json").touch()
    monkeypatch.setattr(Path, "chmod", reject)
    stage.finish({}, wrote="model")
    assert tried == ["model"] and make(out).is_current()


def test_time_adds_up_over_interruptions(out, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(stage_module.time, "monotonic", lambda: clock[0])
    stage = make(out)
    stage.begin()
    clock[0] += 30
    stage.heartbeat()
    clock[0] += 1000  # lost: the process died, and the machine was off for a while
    stage = make(out)
    stage.begin()
    clock[0] += 12
    stage.finish({}, wrote="model")
    assert read_provenance(out)["seconds"] == 42


def test_provenance(out):
    arguments = ["--config", "my recipes/pretrain.yaml", "--seed=3"]
    complete(out, recipe={"seed": 3}, inputs={"data": "abc"}, arguments=arguments)
    record = json.loads((out / PROVENANCE).read_text())
    assert record["stage"] == "pretrain" == written_by(out)
    assert record["recipe"] == {"seed": 3} and record["inputs"] == {"data": "abc"}
    assert record["metrics"] == {"loss": 1.5} and record["seconds"] >= 0
    assert {"python", "torch", "transformers"} <= record["versions"].keys()
    assert record["command"] == "scratch pretrain --config 'my recipes/pretrain.yaml' --seed=3"


def test_names_the_next_command(tmp_path, out, capsys):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "dpo.yaml").write_text("- not a recipe")
    (recipes / "grpo.yaml").write_text("model_name_or_path: elsewhere")
    (recipes / "sft.yaml").write_text(f"model_name_or_path: {out}")
    (recipes / "evaluate.yaml").write_text(f"models: {{sft: {tmp_path / 'sft'}}}")
    complete(out, arguments=["--config", str(recipes / "pretrain.yaml")])
    assert capsys.readouterr().out.splitlines()[-1] == f"next: scratch sft --config {recipes / 'sft.yaml'}"
    complete(tmp_path / "sft", name="sft", arguments=["--config", str(recipes / "sft.yaml")])
    assert capsys.readouterr().out.splitlines()[-1] == f"next: scratch evaluate --config {recipes / 'evaluate.yaml'}"
    complete(tmp_path / "evaluate", name="evaluate", arguments=["--config", str(recipes / "evaluate.yaml")])
    assert "next:" not in capsys.readouterr().out


def refusal(*args, **kwargs) -> str:
    with pytest.raises(UserError) as error:
        make(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refuses_folders_of_others(tmp_path, out):
    complete(out)
    before = files(tmp_path)
    assert refusal(out, name="sft") == f"'output_dir': {out} holds the output of 'pretrain'; choose another for sft"
    for suffix in ("", ".partial", ".replaced"):
        foreign = tmp_path / f"thesis{suffix}"
        foreign.mkdir()
        (foreign / "chapter.txt").write_text("mine")
        assert f"{foreign} was not written by scratch" in refusal(tmp_path / "thesis")
        (foreign / "chapter.txt").unlink()
        foreign.rmdir()
    (tmp_path / "file").touch()
    assert "was not written by scratch" in refusal(tmp_path / "file")
    (tmp_path / "file").unlink()
    assert "needs a separate folder" in refusal(Path("."))
    assert "needs a separate folder" in refusal(Path(".."))
    assert files(tmp_path) == before


def test_an_empty_folder_will_do(out):
    out.mkdir(parents=True)
    complete(out)
    assert (out / "model").exists()


def test_a_recipe_in_the_output_folder_is_not_ours(out):
    out.mkdir(parents=True)
    (out / RECIPE).write_text("mine")
    with refused("output_dir", out, "move it"):
        make(out)
    assert files(out) == {RECIPE: b"mine"}


def test_an_output_recorded_without_complete_is_whole(out):
    """`complete` came later than `files`."""
    complete(out)
    record = read_provenance(out)
    del record["complete"]
    (out / PROVENANCE).write_text(json.dumps(record))
    assert is_whole(out) and make(out).is_current()
    out.rename(out.with_name("out.replaced"))
    assert make(out).is_current() and out.is_dir()
    (out / "model").unlink()
    assert not is_whole(out)
    del record["files"]
    (out / PROVENANCE).write_text(json.dumps(record))
    assert not is_whole(out)
    (out / PROVENANCE).write_text(json.dumps(record | {"complete": True}))
    assert is_whole(out)


@pytest.fixture
def between_the_renames(out, monkeypatch):
    """A run of seed 1 that is about to move its output into place, where one of seed 0 was."""
    complete(out, content="old")
    stage = make(out, recipe={"seed": 1}, arguments=["--restart"])
    write_work(stage, "new")
    replace = Path.replace

    def killed(path, target):
        if path == staging_dir(out):
            raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            stage.finish({}, wrote="model")
    yield stage
    stage.lock.close()


def test_a_second_process_between_the_two_renames(out, between_the_renames):
    """Another process leaves the old output alone, and the lock is held until the new one is in place."""
    make(out, recipe={"seed": 1})
    assert not out.exists() and (staging_dir(out) / ".lock").exists()
    between_the_renames._move()
    assert (out / "model").read_text() == "new" and sorted(os.listdir(out)) == ["model", PROVENANCE, RECIPE]


def test_a_finished_run_that_was_not_put_in_place_is_called_finished(out, between_the_renames):
    with refused("output_dir", staging_dir(out), "finished run of another recipe (seed: 1 -> 2)", "same command"):
        make(out, recipe={"seed": 2}).is_current()
    make(out, recipe={"seed": 2}, arguments=["--restart"]).begin()
    assert (out / "model").read_text() == "old"  # the last output in place stands until the next is finished


def test_a_process_that_was_too_late_to_put_an_output_in_place(out, between_the_renames, monkeypatch):
    late, lock = make(out, recipe={"seed": 1}), Stage._lock

    def locked_after_the_other(stage):
        lock(stage)
        between_the_renames._move()

    monkeypatch.setattr(Stage, "_lock", locked_after_the_other)
    assert late.is_current() and (out / "model").read_text() == "new"


def test_a_full_disk_at_the_start_does_not_lock_the_folder(out):
    staging_dir(out).mkdir(parents=True)
    (staging_dir(out) / (PROVENANCE + ".tmp")).touch()
    complete(out)
    assert written_by(out) == "pretrain"


class Killed(BaseException):
    """In the place of SIGKILL: nothing catches it, and nothing is tidied up."""


class Death:
    """Stops the program before its n-th change of the disk, counted from now on."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int):
        self.left = number
        for name in ("mkdir", "open", "unlink", "rename", "replace", "rmdir", "scandir"):  # scandir: within a deletion
            patch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, change):
        def changed(*arguments, **options):
            self.left -= 1
            if self.left == 0:
                raise Killed
            return change(*arguments, **options)

        return changed


def crash_points(monkeypatch, prepare, act):
    """Call `prepare()` and `act()` again and again, and yield after `act` has died before its 1st, 2nd ... change."""
    for number in range(1, 1000):
        prepare()
        with monkeypatch.context() as patch:
            death = Death(patch, number)
            try:
                act()
            except Killed:
                pass
            finished = death.left > 0
        yield number
        if finished:
            return
    raise AssertionError("it never finished")


def wipe(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def write_work(stage: Stage, text: str) -> Path:
    folder = stage.begin()
    for name in ("model", "work/blocks", "trainer/checkpoint-2/state"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_killed_anywhere_a_finished_run_is_replaced_whole(out, monkeypatch):
    """At least one whole output stands; the next start finds the work that was done, and leaves nothing behind."""
    new = {"recipe": {"seed": 1}, "arguments": ["--restart"]}

    def prepare():
        wipe(out.parent)
        complete(out, content="old")

    def act():
        stage = make(out, **new)
        write_work(stage, "new")
        stage.finish({}, wrote="model")

    points = 0
    for points in crash_points(monkeypatch, prepare, act):
        standing = out if out.exists() else out.with_name("out.replaced")
        assert is_whole(standing) and (standing / "model").read_text() in ("old", "new")
        done = any(is_whole(place) and (place / "model").read_text() == "new" for place in (staging_dir(out), out))
        again = make(out, recipe={"seed": 1}, arguments=["--restart"])
        assert again.is_current() or not done
        if not again.is_current():
            write_work(again, "new")
            again.finish({}, wrote="model")
        assert os.listdir(out.parent) == ["out"] and sorted(os.listdir(out)) == ["model", PROVENANCE, RECIPE]
        assert make(out, recipe={"seed": 1}).is_current() and (out / "model").read_text() == "new"
    assert points > 30


@pytest.mark.parametrize("finished", [True, False])
def test_killed_anywhere_while_unfinished_work_is_discarded(out, monkeypatch, finished):
    """The next start finds all of that work or none of it, and never takes the rest of it for somebody else's."""

    def prepare():
        wipe(out.parent)
        if finished:
            complete(out, content="old")
        stage = make(out, recipe={"seed": 1}, arguments=["--restart"])
        write_work(stage, "half")
        stage.heartbeat()

    for _ in crash_points(monkeypatch, prepare, lambda: make(out, recipe={"seed": 2}, arguments=["--restart"]).begin()):
        work = files(staging_dir(out))
        assert {"model", "work/blocks", "trainer/checkpoint-2/state"} <= work.keys() or not work.keys() - RECORDS
        assert is_whole(out) is finished
        stage = make(out, recipe={"seed": 2}, arguments=["--restart"])
        assert not stage.is_current() and not {"work", "trainer"} & set(os.listdir(stage.begin()))
        assert not out.with_name("out.replaced").exists()


def test_a_backup_beside_an_output_stays(out):
    """`cp -r out out.old` is what people do."""
    complete(out, content="old")
    shutil.copytree(out, out.with_name("out.old"))
    complete(out, content="new", recipe={"seed": 1}, arguments=["--restart"])
    assert (out.with_name("out.old") / "model").read_text() == "old"


def test_several_processes_find_the_output_of_a_run_that_was_killed_just_before_its_end(out, monkeypatch):
    """Only the first moves it, but all of them know that there is nothing to do."""
    stage = make(out)
    write_work(stage, "new")
    monkeypatch.setattr(Stage, "_move", lambda stage: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        stage.finish({}, wrote="model")
    stage.lock.close()
    monkeypatch.undo()
    monkeypatch.setenv("RANK", "1")
    assert make(out).is_current() and not out.exists()
    monkeypatch.setenv("RANK", "0")
    assert make(out).is_current() and (out / "model").read_text() == "new"
    monkeypatch.setenv("RANK", "1")
    assert make(out).is_current()


def test_digests(tmp_path, out):
    file = tmp_path / "a.txt"
    file.write_text("one")
    first = digest(file)
    assert digest(file) == first
    file.write_text("two")
    assert digest(file) != first

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_text("1")
    before = digest(folder)
    (folder / "x").rename(folder / "y")
    assert digest(folder) != before

    stage = complete(out)
    assert digest(out) == stage.fingerprint  # of a stage's output: cheap, whatever its size


def test_missing_and_unfinished_inputs(tmp_path, out):
    with pytest.raises(UserError, match="'data': no such file or folder: .*nowhere"):
        digest(tmp_path / "nowhere", "data")
    make(out).begin()
    for unfinished in (out, staging_dir(out)):
        with pytest.raises(UserError, match="is not complete yet; finish the stage"):
            digest(unfinished, "model")
    with pytest.raises(UserError, match="not complete yet; run `scratch pretrain` first"):
        check_stage(out, "pretrain", key="model")
    with pytest.raises(UserError, match="no such folder; run `scratch pretrain` first"):
        check_stage(tmp_path / "nowhere", "pretrain", key="model")


def test_inputs_of_the_wrong_stage(tmp_path, out):
    complete(out)
    check_stage(out, "sft", "pretrain", key="model")
    check_stage(tmp_path, "prepare", key="data")  # from elsewhere
    with pytest.raises(UserError, match="holds the output of 'pretrain'; expected the output of prepare or sft"):
        check_stage(out, "prepare", "sft", key="data")


def test_damaged_provenance_is_named(out):
    complete(out)
    for content in ('{"stage": "pre', "null", '{"stage": "pretrain", "recipe": []}'):
        (out / PROVENANCE).write_text(content)
        with pytest.raises(UserError, match="provenance.json is damaged; delete"):
            make(out)


def test_a_pipe_is_not_an_input(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with refused("data", "pipe.jsonl is a pipe or a device"):
        digest(tmp_path / "pipe.jsonl", "data")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that fails when it is read")
def test_an_input_that_cannot_be_read():
    with refused("data", "/proc/self/mem cannot be read"):
        digest("/proc/self/mem", "data")


def test_a_folder_of_too_many_files_is_not_an_input(tmp_path, monkeypatch):
    monkeypatch.setattr("training.stages.provenance.MOST_FILES", 2)
    for place in (tmp_path, tmp_path / "a", tmp_path / "b"):
        place.mkdir(exist_ok=True)
        (place / "file").write_text(place.name)
    with refused("tokenizer", f"{tmp_path} holds more than 2 files"):
        digest(tmp_path, "tokenizer")
    (tmp_path / "b" / "file").unlink()
    assert digest(tmp_path)


def test_an_error_is_one_line_whatever_it_quotes():
    assert str(UserError("no file 'a\nb\x00'")) == "no file 'a\\nb\\x00'"


def test_two_processes_never_work_on_the_same_folder(out, tmp_path):
    script = """
import sys
from training.stages.stage import Stage

stage = Stage("pretrain", sys.argv[1], {"seed": 0}, {}, [])
stage.begin()
print("begun", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script, str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "begun\n"
        with pytest.raises(UserError, match="another process is writing .*out; wait for it, stop it, or choose"):
            make(out).begin()
        other.kill()
        other.wait()
        complete(out)  # what it held ended with it
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_linked_folder_is_part_of_an_input(tmp_path):
    texts, real = tmp_path / "texts", tmp_path / "real"
    texts.mkdir(), real.mkdir()
    (texts / "a.txt").write_text("a")
    alone = digest(texts)
    (real / "b.txt").write_text("b")
    (texts / "linked").symlink_to(real)
    (real / "back").symlink_to(texts)  # a circle ends
    before = digest(texts)
    (real / "b.txt").write_text("c")
    assert len({alone, before, digest(texts)}) == 3


def test_the_next_commands_are_quoted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my recipes").mkdir()
    (tmp_path / "my recipes" / "prepare.yaml").write_text("tokenizer: my run/tokenizer\n")
    stage = Stage("tokenizer", "my run/tokenizer", {}, {}, ["--config", "my recipes/tokenizer.yaml"])
    stage.begin()
    stage.finish({}, wrote="something", uses=[command_line("complete", "my run/tokenizer", "it's")])
    words = capsys.readouterr().out.splitlines()[-1].removeprefix("next: ").replace(", or", " ")
    assert shlex.split(words) == [
        *("scratch", "prepare", "--config", "my recipes/prepare.yaml"),
        *("scratch", "complete", "my run/tokenizer", "it's"),
    ]
