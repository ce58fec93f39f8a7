"""`scratch attention`: what it finds in a folder, what it writes, and what it says where there is nothing to draw."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from insight import write_record
from messages import refused
from tiny_stages import write_data, write_model, write_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from training.commands.attention import AttentionConfig, default_folder, explain, find_source, main, open_record
from training.insight.record import INSIGHT, Record
from training.insight.walkthrough import NotPlain
from training.model_io.model_folder import copy_tokenizer
from training.stages.checkpoints import CHECKPOINTS, MARKER

RECIPE = {"global_batch_size": 2, "sequence_length": 64, "packing": "stream", "curriculum": {}, "max_steps": 4}
RECIPE |= {"seed": 0, "document_mask": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folders of runs: `recorded`, `kept` with two checkpoints, `bare` without either, `gpt2` of another class."""
    place = tmp_path_factory.mktemp("runs")
    tokenizer = write_tokenizer(place / "tokenizer")
    data = write_data(place / "data", tokenizer)
    write_model(place / "bare", tokenizer, data=str(data), **RECIPE)
    for name in ("recorded", "kept"):
        shutil.copytree(place / "bare", place / name)
    write_record(place / "recorded" / INSIGHT)
    for step in (2, 4):
        checkpoint = place / "kept" / CHECKPOINTS / f"step-{step:08d}"
        shutil.copytree(place / "bare", checkpoint)
        (checkpoint / MARKER).write_text(json.dumps({"progress": {"step": step, "validation_loss": None}}))
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=280, n_positions=32))
    model.save_pretrained(place / "gpt2")
    copy_tokenizer(tokenizer, place / "gpt2", model)
    return place


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(runs: Path, name: str, *options: str) -> Path:
    output = runs / f"{name}-attention"
    shutil.rmtree(output, ignore_errors=True)
    main([str(runs / name), *options])
    return output


@pytest.mark.slow
def test_all_pictures_of_a_record(runs, capsys):
    before = content(runs / "recorded")
    output = run(runs, "recorded", "--text", "the cat sat on the cat")
    written = sorted(path.name for path in output.iterdir())
    assert written == sorted([
        *("attention.html", "explanation.pdf", "explanation.md", "explanation-1.png", "explanation-2.png"),
        *("phases.png", "phases.pdf", "head-1.0.png", "head-1.0.pdf", "head-1.0.gif"),
        *(["head-1.0.mp4"] if shutil.which("ffmpeg") else []),
    ])  # fmt: skip
    assert content(runs / "recorded") == before
    lines = capsys.readouterr().out.splitlines()
    assert any("drew head 1.0" in line and "induction" in line for line in lines)
    assert lines[-1].startswith("next: open ") and "attention.html" in lines[-1] and "--without all" in lines[-1]
    text = (output / "explanation.md").read_text()
    assert "head 1.0" in text and all((output / name).is_file() for name in re.findall(r"\]\((.*?)\)", text))


def test_knocking_out_one_head(runs, capsys):
    output = run(runs, "recorded", "--without", "1.1", "0.0")
    figures = json.loads((output / "ablation.json").read_text())
    (effect,) = figures["effects"]
    assert [path.name for path in output.iterdir()] == ["ablation.json"]
    assert effect["heads"] == [[1, 1], [0, 0]] and effect["loss"]["n"] == figures["loss"]["n"] == 16
    assert f"{figures['loss']['value']:.4f}" in (table := capsys.readouterr().out)
    assert f"{effect['loss']['value']:+.4f}" in table and f"{effect['copying']['value']:+.3f}" in table


def test_knocking_out_all_heads(runs, capsys):
    output = run(runs, "gpt2", "--without", "all")
    assert sorted(path.name for path in output.iterdir()) == ["ablation.json", "ablation.pdf", "ablation.png"]
    figures = json.loads((output / "ablation.json").read_text())
    assert [effect["heads"] for effect in figures["effects"]] == [[[n // 4, n % 4]] for n in range(8)]
    assert figures["loss"] is None and "no held-out text" in capsys.readouterr().out


def test_embeddings_of_a_run(runs, capsys):
    output = run(runs, "kept", "--neighbours", "c", " another", "--positions")
    names = {f"{stem}.{ending}" for stem in ("neighbours", "positions") for ending in ("png", "pdf")}
    assert {path.name for path in output.iterdir()} == names
    lines = capsys.readouterr().out.splitlines()
    beginnings = ["c at step 2: ", "c at step 4: ", "·another at step 2: ", "·another at step 4: "]
    assert all(line.startswith(beginning) for line, beginning in zip(lines, beginnings, strict=False))


def test_checkpoints_are_recorded(runs, tmp_path):
    source = find_source(str(runs / "kept"))
    assert (source.record, source.checkpoints, source.model) == (None, 2, str(runs / "kept"))
    record, (remark,) = open_record(AttentionConfig(str(runs / "kept"), text="a cat"), source, tmp_path)
    assert [scores.step for scores in record.steps] == [2, 4] and record.steps[0].tokens == 2 * 2 * 64
    assert record.folder == tmp_path / INSIGHT and record.probes[-1].kind == "text"
    assert "2 checkpoints" in remark and "insight.enabled: true" in remark


@pytest.mark.parametrize("name", ["bare", "gpt2"])
def test_one_moment_of_a_model(runs, tmp_path, name):
    source = find_source(str(runs / name))
    record, (remark,) = open_record(AttentionConfig(str(runs / name), tokens=16, head="1.1"), source, tmp_path)
    assert len(record.steps) == 1 and record.vectors == [(1, 1)] and "one moment" in remark
    assert bool(record.steps[0].loss_by_position) == (name == "bare")


def test_the_folder_of_a_whole_run_and_an_unfinished_one(runs, tmp_path):
    shutil.copytree(runs / "kept", tmp_path / "run" / "pretrain.partial")
    (tmp_path / "run" / "pretrain.partial" / "config.json").unlink()
    source = find_source(str(tmp_path / "run"))
    assert source.folder == str(tmp_path / "run" / "pretrain.partial") and source.checkpoints == 2
    assert source.model.endswith("step-00000004")


BAD = [
    ("nowhere", [], "run", "no such folder"),
    ("data", [], "run", "no record of attention"),
    ("early", [], "run", "insight.enabled: true"),
    ("recorded", ["--head", "9.9"], "head", "0.0 to 1.1"),
    ("kept", ["--head", "2.0"], "head", "0.0 to 1.1"),
    ("gpt2", ["--head", "x", "--tokens", "16"], "head", "1.0"),
    ("recorded", ["--without", "9.9"], "without", "0.0 to 1.1"),
    ("kept", ["--neighbours", "another another"], "neighbours", "tokens"),
    ("gpt2", ["--positions"], "positions", "GPT2LMHeadModel"),
    ("recorded", ["--text", "cat " * 90], "text", "2 to 24 tokens"),
    ("gpt2", [], "tokens", "context of 32"),
    ("kept", ["--output_dir", "bare"], "output_dir", "pretrain"),
]


@pytest.mark.parametrize(("name", "options", "key", "fact"), BAD, ids=[f"{bad[0]}-{bad[2]}" for bad in BAD])
def test_bad_input_is_one_line_and_writes_nothing(runs, monkeypatch, name, options, key, fact):
    monkeypatch.chdir(runs)
    early = runs / "early"
    early.mkdir(exist_ok=True)
    shutil.copy(runs / "bare" / "provenance.json", early)
    before = content(runs)
    with refused(key, fact):
        main([name, *options])
    assert content(runs) == before and not list(runs.glob("*.tmp"))


def test_attention_that_is_not_explained(runs, tmp_path, monkeypatch):
    """A remark, unless the user asked for a text."""

    def refuse(*arguments):
        raise NotPlain("'model': it has soft caps")

    monkeypatch.setattr("training.insight.walkthrough.walk_through", refuse)
    config = AttentionConfig(str(runs / "recorded"))
    source = find_source(config.run)
    record = Record.open(source.record)
    (line,) = explain(config, source, record, (1, 0), None, tmp_path)
    assert "soft caps" in line and not list(tmp_path.iterdir())
    with refused("model", "soft caps"):
        explain(config, source, record, (1, 0), [5, 6], tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("runs/mine/pretrain", "runs/mine/pretrain-attention"), ("owner/model", "model-attention")],
)
def test_the_folder_of_the_pictures(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_folder(name) == Path(folder)
    assert default_folder(".") == tmp_path.with_name(f"{tmp_path.name}-attention")


def test_an_architecture_without_attention_modules(runs, tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=280, hidden_size=16, num_hidden_layers=1, state_size=4))
    model.save_pretrained(tmp_path / "mamba")
    copy_tokenizer(runs / "tokenizer", tmp_path / "mamba", model)
    with refused("model", "MambaForCausalLM"):
        main([str(tmp_path / "mamba")])
    assert [path.name for path in tmp_path.iterdir()] == ["mamba"]
