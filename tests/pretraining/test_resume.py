"""What a run does about an earlier one in its folder: resumes or continues it, rejects it, or starts over."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from provenance import unfinish
from safetensors.torch import load_file
from tiny_stages import MODEL, flags, forget_accelerate, write_data, write_tokenizer

from training.cli import main
from training.pretraining import loop, model
from training.pretraining.checkpoint import Checkpoints

OPTIONS = {
    **{f"model.{key}": value for key, value in MODEL.items()},
    "output_dir": "new",
    "data": "data",
    "tokenizer": "tokenizer",
    "bf16": "false",
    "max_steps": 4,
    "sequence_length": 16,
    "global_batch_size": 4,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "eval_steps": 2,
    "eval_sequences": 2,
    "save_steps": 2,
}


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def pretrain(**changes: object) -> int:
    forget_accelerate()
    return main(["pretrain", *flags(OPTIONS | changes)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert pretrain() == 0
    return place


@pytest.fixture
def copied(finished, tmp_path, monkeypatch) -> Path:
    """A finished run, with two checkpoints."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def interrupted(copied) -> Path:
    """A run killed in its last moment, with two checkpoints written."""
    Path("new").rename("new.partial")
    unfinish(Path("new.partial"))
    return copied


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(capfd, **changes: object) -> str:
    """The one line of a run that must not start and must change nothing."""
    before = files(Path("."))
    capfd.readouterr()
    assert pretrain(**changes) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert files(Path(".")) == before and len(line) < 400
    return line


def test_another_recipe_is_refused(interrupted, capfd):
    line = refusal(capfd, max_steps=9, **{"model.hidden_size": 48, "optimizer.momentum": 0.9})
    assert line == (
        "error: 'output_dir': new.partial holds an interrupted run of another recipe (max_steps: 4 -> 9, "
        "model.hidden_size: 32 -> 48, optimizer.momentum: 0.95 -> 0.9); choose another output_dir, or discard that "
        "run with --restart"
    )
    assert "(model.mlp_bias: not set -> False)" in refusal(capfd, **{"model.mlp_bias": "false"})


def test_other_inputs_are_refused(interrupted, capfd):
    record = json.loads(Path("data/provenance.json").read_text())
    Path("data/provenance.json").write_text(json.dumps(record | {"fingerprint": "another"}))
    assert "another recipe (inputs changed: data); choose" in refusal(capfd)


def test_to_start_over_is_said(interrupted, finished, capfd):
    assert pretrain(max_steps=2, restart="true") == 0
    said = capfd.readouterr().out
    assert "pretrain: restart requested, starting over" in said and "resuming" not in said
    assert [path.name for path in Path("new/checkpoints").iterdir()] == ["step-00000002"]


def test_what_does_not_change_what_is_learnt_may_differ(interrupted, finished, capfd, monkeypatch):
    monkeypatch.setattr(model, "worth_compiling", lambda *_: True)  # on another machine; it stays as it was
    shutil.rmtree("new.partial/checkpoints/step-00000004")
    Path("tokenizer").rename("elsewhere")
    options = {"save_steps": 1, "keep_last": 3, "async_save": "false", "logging_steps": 2, "eval_steps": 1}
    assert pretrain(tokenizer="elsewhere", per_device_train_batch_size=4, sample_prompts="[the]", **options) == 0
    said = capfd.readouterr().out
    assert "resuming from step 2 (new.partial/checkpoints/step-00000002)" in said and "compiled" not in said
    one, other = load_file("new/model.safetensors"), load_file(finished / "new" / "model.safetensors")
    assert all((one[name] == other[name]).all() for name in other)
    assert len(list(Path("new/checkpoints").iterdir())) == 3


def test_more_steps_continue_a_finished_run(copied, capfd, monkeypatch):
    """From the checkpoint before its decay; the weights are those of a run that had these steps from the start.

    More steps may make compiling worthwhile, which would change the last bits.
    """
    monkeypatch.setattr(model, "worth_compiling", lambda *_: True)
    assert pretrain(max_steps=6) == 0
    said = capfd.readouterr().out
    assert "compiled" not in said
    monkeypatch.setattr(model, "worth_compiling", lambda *_: False)
    assert "pretrain: continues new (max_steps: 4 -> 6) and keeps its first 2 steps" in said
    assert "resuming from step 2 (new.partial/checkpoints/step-00000002)" in said
    assert pretrain(max_steps=6, output_dir="whole") == 0
    assert files(Path("new"))["model.safetensors"] == files(Path("whole"))["model.safetensors"]
    records = [json.loads(line) for line in Path("new/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 3, 4, 5, 6]


def test_more_steps_without_a_checkpoint_before_the_decay(copied, capfd):
    shutil.rmtree("new/checkpoints/step-00000002")
    line = refusal(capfd, max_steps=6)
    assert "new holds a finished run of another recipe (max_steps: 4 -> 6)" in line
    assert "--restart" in line and "from step 3 on, and no checkpoint" in line


@pytest.mark.parametrize("changes", [{"max_steps": 3}, {"max_steps": 6, "seed": 1}])
def test_a_finished_run_of_another_recipe_is_refused(copied, capfd, changes):
    line = refusal(capfd, **changes)
    assert f"(max_steps: 4 -> {changes['max_steps']}" in line and "--restart" in line and "continued" not in line


def test_a_finished_run_without_its_model_is_made_again_from_its_last_checkpoint(copied, finished, capfd):
    Path("new/model.safetensors").unlink()
    assert pretrain(save_steps=1) == 0
    said = capfd.readouterr().out
    assert "pretrain: makes new again (model.safetensors missing)" in said and "resuming from step 4" in said
    assert files(Path("new"))["model.safetensors"] == files(finished / "new")["model.safetensors"]
    assert pretrain() == 0 and "up to date" in capfd.readouterr().out


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_goes_on_exactly(finished, tmp_path, monkeypatch, capfd):
    """With dropout from compiled code, and validations, samples and captures in other shapes between the steps."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    options = {"torch_compile": "true", "model.hidden_dropout": 0.1, "eval_steps": 1, "sample_prompts": "[the cat]"}
    assert pretrain(output_dir="whole", **options) == 0
    shutil.copytree("whole", "half.partial")
    unfinish(Path("half.partial"))
    shutil.rmtree("half.partial/checkpoints/step-00000004")
    torch.compiler.reset()  # as in a new process
    captured = {"insight.enabled": "true", "insight.tokens": 16}
    assert pretrain(output_dir="half", **options, **captured) == 0
    said = capfd.readouterr().out
    assert "resuming from step 2" in said and "the record begins at step 2, because it was off before" in said
    whole, half = (Path(run, "model.safetensors").read_bytes() for run in ("whole", "half"))
    assert whole == half


def test_a_finished_run_is_skipped(copied, capfd):
    before = files(Path("."))
    assert pretrain(save_steps=1) == 0
    assert "pretrain: new is up to date, skipped" in capfd.readouterr().out
    assert files(Path(".")) == before


@pytest.mark.parametrize("name", ["model.safetensors", "state/optimizer.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_passed_over(interrupted, finished, capfd, name):
    newest = Path("new.partial/checkpoints/step-00000004")
    content = (newest / name).read_bytes()
    (newest / name).write_bytes(content[: len(content) // 2])
    assert pretrain() == 0
    said = capfd.readouterr().out
    assert said.count("warning") == 1
    assert f"warning: {newest} is damaged ({name} has changed), skipped" in said and "resuming from step 2" in said
    assert files(Path("new"))["model.safetensors"] == files(finished / "new")["model.safetensors"]
    assert len(list(Path("new/checkpoints").iterdir())) == 2


def test_a_checkpoint_of_another_network_is_refused(interrupted, capfd):
    """Whole, but of another run: made by hand, or by an older version with other defaults."""
    newest = Path("new.partial/checkpoints/step-00000004")
    config = json.loads((newest / "config.json").read_text())
    (newest / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2, "norm_eps": 0.5}))
    (newest / "complete.json").unlink()
    newest.rename(newest.with_name(newest.name + ".tmp"))
    progress = {"step": 4, "validation_loss": None, "losses": [], "seconds": 1, "compiled": False}
    Checkpoints(newest.parent, 2, 0, 0, False, logs=[]).commit(progress)
    capfd.readouterr()
    assert pretrain() == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"{newest}/config.json does not match the model of the recipe (norm_eps: 0.5 -> " in line
    assert ", num_key_value_heads: 2 -> 1); choose another output_dir, or start over with --restart" in line


@pytest.mark.parametrize(
    "output_dir, said",
    [
        ("text/new", "'output_dir': text/new.partial cannot be written (Not a directory)"),
        ("text", "'output_dir': text was not written by scratch"),
        ("/proc/new", "'output_dir': /proc/new.partial cannot be written (No such file or directory)"),
    ],
)
def test_an_output_that_cannot_be_written(interrupted, capfd, output_dir, said):
    Path("text").write_text("mine")
    assert said in refusal(capfd, output_dir=output_dir)


@pytest.mark.parametrize("async_save", ["true", "false"])
def test_no_room_for_the_second_checkpoint(interrupted, finished, capfd, async_save):
    """The kernel's limit of a file's size, set after the first checkpoint; this needs no privilege."""
    shutil.rmtree("new.partial")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    commit = Checkpoints.commit

    def commit_and_limit(*arguments):
        commit(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "commit", commit_and_limit)
        try:
            assert pretrain(save_steps=1, async_save=async_save) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: no space left on the disk (") and "File too large" in line
    assert [path.name for path in Path("new.partial/checkpoints").iterdir()] == ["step-00000001"]
    assert pretrain(save_steps=1) == 0
    assert "resuming from step 1" in capfd.readouterr().out
    assert files(Path("new"))["model.safetensors"] == files(finished / "new")["model.safetensors"]


def test_an_engine_that_spreads_the_model(interrupted, finished, capfd, monkeypatch):
    """Accelerate's layout below `state/` follows the same rules. test_cluster.py runs FSDP itself."""
    shutil.rmtree("new.partial")
    monkeypatch.setattr(loop, "is_sharded", lambda accelerator: True)
    assert pretrain(sample_prompts="[the]") == 0
    Path("new").rename("new.partial")
    unfinish(Path("new.partial"))
    newest = Path("new.partial/checkpoints/step-00000004")
    assert (newest / "state" / "optimizer.bin").is_file() and (newest / "model.safetensors").is_file()
    (newest / "state" / "optimizer.bin").write_bytes(b"half")
    assert pretrain() == 0
    said = capfd.readouterr().out
    assert f"{newest} is damaged (state/optimizer.bin has changed), skipped" in said
    assert "resuming from step 2" in said
    assert files(Path("new"))["model.safetensors"] == files(finished / "new")["model.safetensors"]
