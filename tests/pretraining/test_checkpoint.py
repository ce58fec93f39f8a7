"""Checkpoints: whole or absent, found again, deleted; and their content."""

import json
import math
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from terminal import ROOT
from tiny_stages import MODEL, VOCAB_SIZE, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.errors import UserError
from training.optim.config import OptimizerConfig
from training.optim.optimizer import build_optimizer
from training.optim.schedule import learning_rate_factor
from training.pretraining import checkpoint as checkpoint_module
from training.pretraining.checkpoint import Checkpoints, common_steps, reusable_steps
from training.pretraining.config import PretrainConfig
from training.pretraining.randomness import seed_step
from training.pretraining.state import TrainingState
from training.stages.recipe import build
from training.stages.yaml_values import read_yaml


@pytest.fixture
def log(tmp_path) -> Path:
    (tmp_path / "metrics.jsonl").touch()
    return tmp_path / "metrics.jsonl"


def make(
    log: Path, keep_last: int = 100, keep_best: int = 0, asynchronous: bool = False, reusable: int = -1
) -> Checkpoints:
    return Checkpoints(log.with_name("checkpoints"), keep_last, keep_best, reusable, asynchronous, [log])


def write(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "weights").write_bytes(b"weights")
    (folder / "state" / "optimizer").write_bytes(b"momentum")


def save(checkpoints: Checkpoints, step: int, loss: float | None = None) -> None:
    checkpoints.save(progress(step, loss), lambda: write)


def progress(step: int, loss: float | None = None) -> dict[str, object]:
    return {"step": step, "validation_loss": loss}


def steps(checkpoints: Checkpoints) -> list[int]:
    """The steps of all checkpoints in the folder, which must hold whole checkpoints and nothing else."""
    return sorted(int(path.name.removeprefix("step-")) for path in checkpoints.folder.iterdir())


def test_the_newest_is_found(log):
    checkpoints = make(log)
    assert checkpoints.newest() is None
    for step in (9, 100, 20):
        save(checkpoints, step, loss=step / 10)
    assert steps(checkpoints) == [9, 20, 100]
    newest = make(log).newest()
    assert newest.step == 100 and newest.validation_loss == 10.0
    assert (newest.folder / "state" / "optimizer").read_bytes() == b"momentum"


@settings(max_examples=50, deadline=None)
@given(
    losses=st.lists(st.one_of(st.none(), st.floats(0, 9)), min_size=1, max_size=8),
    keep_last=st.integers(1, 3),
    keep_best=st.integers(0, 3),
    reusable=st.integers(-1, 8),
)
def test_the_last_the_best_and_the_reusable_are_kept(tmp_path_factory, losses, keep_last, keep_best, reusable):
    log = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    log.touch()
    checkpoints = make(log, keep_last, keep_best, reusable=reusable)
    kept: dict[int, float] = {}
    for step, loss in enumerate(losses):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint_module, "sync", lambda path: None)  # what takes the time
            save(checkpoints, step, loss)
        kept[step] = math.inf if loss is None else loss
        best = [step for step in sorted(kept, key=lambda step: (kept[step], -step)) if kept[step] < math.inf]
        early = [step for step in sorted(kept) if step <= reusable]
        kept = {step: kept[step] for step in sorted({*sorted(kept)[-keep_last:], *best[:keep_best], *early[-1:]})}
        assert steps(checkpoints) == list(kept)


# The word for each damage, and how to do it.
DAMAGES = {
    "is missing": Path.unlink,
    "has changed": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
    "has changed ": lambda file: file.write_bytes(file.read_bytes()[:-2]),
    "has changed  ": lambda file: file.write_bytes(b""),
    "has changed   ": lambda file: file.write_bytes(b"[1]"),
}


@pytest.mark.parametrize("said", DAMAGES)
@pytest.mark.parametrize("name", ["weights", "state/optimizer", "complete.json"])
def test_a_damaged_one_is_passed_over(log, capsys, name, said):
    checkpoints = make(log, keep_last=2)
    for step in (1, 2):
        save(checkpoints, step)
    damaged = checkpoints.folder / "step-00000002"
    DAMAGES[said](damaged / name)
    capsys.readouterr()
    assert make(log).newest().step == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"pretrain: warning: {damaged} is damaged ({name} ") and line.endswith("), skipped")
    assert said.strip() in line or name == "complete.json"
    # It is not lost before the run has come past it again, and counts for nothing.
    checkpoints = make(log, keep_last=2)
    assert checkpoints.newest().step == 1 and not capsys.readouterr().out
    assert damaged.with_name("step-00000002.damaged").is_dir()
    save(checkpoints, 2)
    assert steps(checkpoints) == [1, 2]


def test_a_step_that_was_changed_in_the_marker_is_seen(log):
    save(make(log), 1)
    marker = log.with_name("checkpoints") / "step-00000001" / "complete.json"
    marker.write_text(marker.read_text().replace('"step": 1', '"step": 7'))
    assert make(log).newest() is None


def test_none_is_left(log, capsys):
    for step in (1, 2):
        save(make(log), step)
        (log.with_name("checkpoints") / f"step-0000000{step}" / "weights").unlink()
    assert make(log).newest() is None
    *warnings, line = capsys.readouterr().out.splitlines()
    assert len(warnings) == 2 and line == "pretrain: no complete checkpoint is left, starting from step 0"


def test_halves_are_swept_and_do_not_count(log):
    checkpoints = make(log)
    save(checkpoints, 1)
    write(checkpoints.begin(2))
    assert make(log).newest().step == 1
    assert steps(checkpoints) == [1]


def test_everything_is_on_the_disk_before_it_counts(log, monkeypatch):
    """For power cuts: files, their folders and the log are synced before the rename, the rename itself after it."""
    done, move, sync = [], checkpoint_module.move, checkpoint_module.sync
    monkeypatch.setattr(checkpoint_module, "sync", lambda path: (done.append(path), sync(path)))
    monkeypatch.setattr(checkpoint_module, "move", lambda path, to: (done.append("rename"), move(path, to))[1])
    checkpoints = make(log)
    save(checkpoints, 1)
    before, after = done[: done.index("rename")], done[done.index("rename") + 1 :]
    half = checkpoints.folder / "step-00000001.tmp"
    names = ("weights", "state/optimizer", "complete.json", "state")
    assert set(before) == {log, half, *(half / name for name in names)}
    assert after == [checkpoints.folder]


def test_whatever_goes_wrong_the_one_before_is_whole(log, monkeypatch):
    """Each call to the disk fails once, in turn."""
    calls, limit = [0], [10**6]

    def counted(function):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] > limit[0]:
                raise OSError(28, "No space left on device")
            return function(*args, **kwargs)

        return call

    for name in ("sync", "sha256", "move"):
        monkeypatch.setattr(checkpoint_module, name, counted(getattr(checkpoint_module, name)))
    save(make(log), 1)
    for count in range(12):
        limit[0], calls[0] = count, 0
        with pytest.raises(OSError):
            save(make(log), 2)
        limit[0] = 10**6
        newest = make(log).newest()
        assert steps(make(log)) == ([1] if newest.step == 1 else [1, 2])
        if newest.step == 2:
            break
    assert newest.step == 2 and count == 9  # 2 sums, 6 files and folders, the rename; then its sync alone failed


def test_asynchronous_writing(log):
    """Training continues while one is written; the next one, and the end, wait for it."""
    checkpoints, gate, order = make(log, asynchronous=True), threading.Event(), []

    def slow(folder: Path) -> None:
        assert gate.wait(10)
        write(folder)
        order.append("first written")

    checkpoints.save(progress(1), lambda: slow)
    assert steps_done(checkpoints) == []
    threading.Timer(0.05, gate.set).start()
    checkpoints.save(progress(2), lambda: (order.append("second captured"), write)[1])
    assert order == ["first written", "second captured"]
    checkpoints.wait()
    assert steps(checkpoints) == [1, 2]


def steps_done(checkpoints: Checkpoints) -> list[Path]:
    return list(checkpoints.folder.glob("step-*[0-9]"))


def test_an_error_in_the_thread_is_raised_in_training(log):
    def full(folder: Path) -> None:
        (folder / "weights").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    checkpoints = make(log, asynchronous=True)
    save(checkpoints, 1)
    checkpoints.save(progress(2), lambda: full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.wait()
    checkpoints.check()  # once is enough
    assert steps(checkpoints) == [1]
    with pytest.raises(OSError, match="No space left"), checkpoints:
        checkpoints.save(progress(3), lambda: full)
    with pytest.raises(KeyError), checkpoints:  # what goes wrong in training is told, and the checkpoint still written
        save(checkpoints, 4)
        raise KeyError
    assert steps(checkpoints) == [1, 4]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("stages") / "tokenizer")


def training(tokenizer: Path, optimizer: str, copied: bool = False, **dials: object) -> TrainingState:
    torch.manual_seed(0)
    config = ScratchConfig.from_preset("scratch", **(MODEL | {"vocab_size": VOCAB_SIZE, **dials}))
    model = ScratchForCausalLM(config)
    return TrainingState(model, build_optimizer(model, OptimizerConfig(name=optimizer)), tokenizer, copied)


def train(state: TrainingState, first: int, last: int) -> None:
    state.model.train()
    for step in range(first, last):
        seed_step(0, step, 0, state.model.device)
        tokens = torch.randint(VOCAB_SIZE, (2, 8))
        state.model(input_ids=tokens, labels=tokens).loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in state.model.state_dict().items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_put_back_it_goes_on_bit_for_bit(tokenizer, tmp_path, optimizer, tied):
    dials = {"tie_word_embeddings": tied, "hidden_dropout": 0.1}
    untouched = training(tokenizer, optimizer, **dials)
    train(untouched, 0, 3)
    untouched.capture()(tmp_path)
    train(untouched, 3, 5)
    other = training(tokenizer, optimizer, **dials)
    other.restore(tmp_path)
    embedding, head = other.model.get_input_embeddings().weight, other.model.get_output_embeddings().weight
    assert (embedding is head) == tied
    train(other, 3, 5)
    found, expected = weights(other), weights(untouched)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_in_one(tokenizer, tmp_path):
    state = training(tokenizer, "muon")
    train(state, 0, 2)
    state.capture()(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert model.dtype == torch.float32 and len(AutoTokenizer.from_pretrained(tmp_path)) == VOCAB_SIZE
    assert all(torch.equal(found, weights(state)[name]) for name, found in model.state_dict().items())
    moments = load_file(tmp_path / "state" / "optimizer.safetensors")
    assert moments["model.layers.0.mlp.up_proj.weight/momentum"].shape == (48, 32)
    assert moments["model.norm.weight/step"] == 2
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".py", ".jinja"}  # nothing pickled


def test_a_captured_state_does_not_change_while_training_goes_on(tokenizer, tmp_path):
    state = training(tokenizer, "muon", copied=True)
    train(state, 0, 1)
    write, then = state.capture(), weights(state)
    train(state, 1, 2)
    write(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, then[name]) for name, tensor in stored.items())
    assert load_file(tmp_path / "state" / "optimizer.safetensors")["model.norm.weight/step"] == 1


def refusal(state: TrainingState, folder: Path) -> str:
    before = weights(state)
    with pytest.raises(UserError) as error:
        state.restore(folder)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(state).items())
    assert "\n" not in str(error.value) and "--restart" in str(error.value)
    return str(error.value)


def test_of_another_network(tokenizer, tmp_path):
    state = training(tokenizer, "muon")
    train(state, 0, 1)
    state.capture()(tmp_path)
    line = refusal(training(tokenizer, "muon", intermediate_size=64, norm_eps=1e-3), tmp_path)
    assert "config.json does not match the model of the recipe (intermediate_size: 48 -> 64, norm_eps: " in line
    assert "has MuonAdamW, but the recipe has AdamW; choose" in refusal(training(tokenizer, "adamw"), tmp_path)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda moments: moments.pop("model.norm.weight/exp_avg"), "model.norm.weight/exp_avg is missing"),
        (lambda moments: moments.update({"lost/momentum": torch.ones(1)}), "lost/momentum is unknown"),
        (
            lambda moments: moments.update({"model.norm.weight/exp_avg": torch.ones(7)}),
            "model.norm.weight/exp_avg is (7,) instead of (32,)",
        ),
        (lambda moments: [moments.pop(name) for name in list(moments) if ".norm." in name], "and 2 more"),
    ],
)
def test_of_another_optimizer(tokenizer, tmp_path, change, said):
    state = training(tokenizer, "muon")
    train(state, 0, 1)
    state.capture()(tmp_path)
    file = tmp_path / "state" / "optimizer.safetensors"
    moments = load_file(file)
    change(moments)
    save_file(moments, file, metadata={"class": "MuonAdamW"})
    assert said in refusal(training(tokenizer, "muon"), tmp_path)


def test_random_draws_depend_on_seed_step_and_process():
    def draws(*numbers: int) -> tuple:
        seed_step(*numbers, torch.device("cpu"))
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = draws(0, 0, 0)
    others = [draws(*numbers) for numbers in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert draws(0, 0, 0) == first
    for library in range(3):
        assert len({draw[library] for draw in (first, *others)}) == 4


def test_a_folder_that_cannot_be_written(log):
    log.with_name("checkpoints").write_text("mine")
    with pytest.raises(UserError, match="checkpoints cannot be written .*; change its permissions or choose another"):
        make(log).newest()
    assert os.path.isfile(log.with_name("checkpoints"))


def test_the_marker_is_plain_json(log):
    make(log).save({"step": 3, "validation_loss": None, "losses": [0.5]}, lambda: write)
    content = json.loads((log.with_name("checkpoints") / "step-00000003" / "complete.json").read_text())
    assert content["progress"] == {"step": 3, "validation_loss": None, "losses": [0.5]} == make(log).newest().progress
    assert sorted(content["files"]) == ["state/optimizer", "weights"]


def recipe(max_steps: int, curriculum: dict | None = None, **optimizer: object) -> PretrainConfig:
    values = {"output_dir": "o", "tokenizer": "t", "data": "d", "max_steps": max_steps, "optimizer": optimizer}
    return build(PretrainConfig, values | {"curriculum": curriculum or {}}, "test")


@pytest.mark.parametrize(
    "optimizer, common",
    [
        ({"decay_fraction": 0.4}, 61),  # the rates of step 60, counted from 0, are still the peak
        ({"decay_fraction": 0.0}, 100),
        ({"decay_fraction": 1.0, "warmup_steps": 10}, 10),
        ({"schedule": "cosine", "warmup_steps": 10}, 11),
        ({"schedule": "cosine", "final_fraction": 1.0}, 100),
    ],
)
def test_rates_in_common(optimizer, common):
    config = recipe(250, **optimizer)
    assert common_steps(config, 100) == common
    keys = config.optimizer
    for step in range(common):
        shape = keys.schedule, keys.warmup_steps, keys.decay_fraction, keys.final_fraction
        assert learning_rate_factor(step, 100, *shape) == learning_rate_factor(step, 250, *shape)
    assert common_steps(recipe(100, **optimizer), 100) == 100  # the same run, made again
    assert reusable_steps(recipe(100, **optimizer)) == common


def test_a_curriculum_has_its_first_phase_in_common():
    phases = {0.2: {"d": 1, "e": 1}, 0.9: "e"}
    assert common_steps(recipe(250, phases, decay_fraction=0.1), 100) == 20
    assert reusable_steps(recipe(100, phases, decay_fraction=0.1)) == 20
    assert common_steps(recipe(100, phases), 100) == 100


def test_every_recipe_keeps_a_checkpoint_for_more_steps():
    for path in sorted((ROOT / "recipes").glob("*/pretrain.yaml")):
        config = build(PretrainConfig, read_yaml(path), str(path))
        assert config.save_steps <= reusable_steps(config), path
