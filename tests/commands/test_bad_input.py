"""What goes wrong at the keyboard or in the machine: one line with the thing and the remedy, and nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.torch import load_file, save
from tiny_stages import (
    MODEL,
    TRAINING,
    VOCAB_SIZE,
    WORDS,
    flags,
    write_data,
    write_model,
    write_text,
    write_tokenizer,
)
from transformers import AutoTokenizer

from modeling_scratch.tokenization_character import CharacterTokenizer
from training.cli import main
from training.stages.provenance import staging_dir
from training.stages.stage import Stage

SIZES = {f"model.{key}": value for key, value in MODEL.items()}


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="session")
def outputs(tmp_path_factory):
    """What earlier stages left; tests work on a copy."""
    place = tmp_path_factory.mktemp("outputs")
    write_text(place / "text.txt")
    tokenizer = write_tokenizer(place / "tokenizer")
    write_data(place / "data", tokenizer)
    write_model(place / "pretrain", tokenizer)
    return place


def options(verb: str) -> dict[str, object]:
    """What makes each verb run, so that one change at a time can spoil it."""
    text = {"data.path": "text.txt", "data.validation_fraction": 0.2}
    trained = {"model_name_or_path": "pretrain", "trust_remote_code": "true", **TRAINING}
    return {
        "tokenizer": {"output_dir": "new", "vocab_size": VOCAB_SIZE, **text},
        "prepare": {"output_dir": "new", "tokenizer": "tokenizer", **text},
        "pretrain": {
            "output_dir": "new",
            "data": "data",
            "tokenizer": "tokenizer",
            "preset": "llama",
            "bf16": "false",
            "sequence_length": 16,
            "global_batch_size": 4,
            "per_device_train_batch_size": 4,
            "max_steps": 2,
            **SIZES,
        },
        "sft": {"output_dir": "new", "datasets": datasets("data/instructions/train.jsonl"), **trained},
        "dpo": {"output_dir": "new", "datasets": datasets("data/preferences/train.jsonl"), **trained},
        "evaluate": {"output_dir": "new", "models": "{base: pretrain}", "data": "data"},
        "export": {"output_dir": "new", "model": "pretrain"},
    }[verb]


def datasets(file: str, **more: object) -> str:
    return json.dumps([{"path": "json", "data_files": {"train": file}, "split": "train", **more}])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(place: Path, capfd, verb: str, changes: dict[str, object], drop: str | None = None) -> str:
    """Run a verb that must fail; its one line. Earlier outputs are untouched and there is no new one."""
    before = files(place)
    chosen = {key: value for key, value in (options(verb) | changes).items() if key != drop}
    assert main([verb, *flags(chosen)]) == 2
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert captured.err.rstrip().endswith(line)
    assert not Path("new").exists()
    left = {name: content for name, content in files(place).items() if not name.startswith("new.partial")}
    assert left == before
    return line


CASES = [
    # verb, what is changed, what the line says
    ("tokenizer", {"data.path": "gone.txt"}, "'data.path': no such file or folder: gone.txt"),
    ("tokenizer", {"data.path": "empty.txt"}, "'data.path': empty.txt: no text left for train"),
    ("tokenizer", {"data.path": "blank"}, "'data.path': blank: no file of a supported type: .txt"),
    ("tokenizer", {"vocab_sise": 300}, "unknown key 'vocab_sise'; did you mean 'vocab_size'?"),
    ("tokenizer", {"vocab_size": "many"}, "'vocab_size' takes a whole number, not 'many'"),
    ("tokenizer", {"output_dir": "data"}, "'output_dir': data holds the output of 'prepare'"),
    ("prepare", {"data.path": "gone.txt"}, "'data.path': no such file or folder: gone.txt"),
    ("prepare", {"data.path": "empty.txt"}, "'data.path': empty.txt: no text left for train"),
    ("prepare", {"data.path": "broken.jsonl"}, "broken.jsonl:2: not valid JSON"),
    ("tokenizer", {"data.path": "half.jsonl"}, "half.jsonl:2: 'text' holds half of a surrogate pair (U+D83E)"),
    ("tokenizer", {"digits": 5}, "'digits' must be one of 1, 2, 3, not 5"),
    ("tokenizer", {"whitespace": "all"}, "'whitespace' must be one of runs, single, not 'all'"),
    ("prepare", {"tokenizer": "gone"}, "'tokenizer': gone: no such folder; run `scratch tokenizer` first"),
    ("prepare", {"tokenizer": "data"}, "'tokenizer': data holds the output of 'prepare'"),
    ("prepare", {"tokenizer": "letters"}, "'tokenizer': letters cannot encode all of the text ("),
    ("prepare", {"output_dir": "tokenizer"}, "'output_dir': tokenizer holds the output of 'tokenizer'"),
    ("prepare", {"output_dir": "thesis"}, "'output_dir': thesis was not written by scratch"),
    ("pretrain", {"data": "gone"}, "'data': gone: no such folder; run `scratch prepare` first"),
    ("pretrain", {"data": "tokenizer"}, "'data': tokenizer holds the output of 'tokenizer'; expected the"),
    ("pretrain", {"tokenizer": "gone"}, "'tokenizer': gone: no such folder; run `scratch tokenizer` first"),
    ("pretrain", {"tokenizer": "other"}, "'tokenizer': other is not the tokenizer that made the shards in data"),
    ("pretrain", {"model.vocab_size": 100}, "'model.vocab_size': 100 is smaller than the tokenizer's 280 tokens"),
    ("pretrain", {"model.hidden_sise": 8}, "'model': unknown model option 'hidden_sise'; did you mean 'hidden_size'?"),
    ("pretrain", {"model.hidden_size": "big"}, "'model.hidden_size' takes int, not 'big'"),
    ("pretrain", {"model.layer_types": "full_attention"}, "'model.layer_types' takes list[str] | None, not 'full_att"),
    ("pretrain", {"model.layer_types": "[full_attention]"}, "`num_hidden_layers` (2) must be equal to the number of"),
    ("pretrain", {"model.layer_types": "[a, b]"}, "full_attention or sliding_attention, not 'a'"),
    ("pretrain", {"model.layer_types": "[sliding_attention, full_attention]"}, "but sliding_window is not set"),
    ("pretrain", {"model.head_dim": 15}, "'model': head_dim (15) must be even"),
    ("pretrain", {"model.rope_theta": 0}, "'model': rope_theta must be a number above 0, not 0"),
    ("pretrain", {"model.rope_parameters.rope_theta": 0}, "'model': rope_theta must be a number above 0, not 0"),
    ("pretrain", {"model.rope_parameters.rope_type": "yarn"}, "'model': rope_parameters of type 'yarn' lack 'factor'"),
    ("pretrain", {"model.position_type": "learned", "model.rope_theta": 500}, "but position_type is 'learned', not r"),
    ("pretrain", {"model.final_logit_softcapping": -1}, "final_logit_softcapping must be a number above 0, not -1"),
    ("pretrain", {"model.initializer_range": 2}, "'model.initializer_range': Value must be"),
    ("pretrain", {"model.hidden_dropout": 1.5}, "'model.hidden_dropout': Value must be"),
    ("pretrain", {"model.norm_type": "batch"}, "'model': norm_type must be one of rms, layer, not 'batch'"),
    ("pretrain", {"model.pad_token_id": 400}, "'model': pad_token_id must be from 0 to 319"),
    ("pretrain", {"model.num_attention_heads": 3}, "'model': hidden_size (32) must be a multiple of num_att"),
    ("pretrain", {"model.num_key_value_heads": 3}, "'model': num_attention_heads (2) must be a multiple of"),
    ("pretrain", {"preset": "lama"}, "'preset' must be one of scratch, llama, qwen3, gpt2, not 'lama'"),
    ("pretrain", {"attn_implementation": "fast"}, "'attn_implementation' must be one of eager, blockwise, sdpa"),
    ("pretrain", {"optimizer.name": "lion"}, "'optimizer.name' must be one of"),
    ("pretrain", {"sequence_length": 256}, "'sequence_length': 256 exceeds model.max_position_embeddings (128)"),
    ("pretrain", {"per_device_train_batch_size": 3}, "'global_batch_size': 4 is not a multiple of per_dev"),
    ("pretrain", {"global_batch_size": 4000}, "tokens, fewer than one batch of 4000 x 16; give more text or lower"),
    ("pretrain", {"max_steps": 0}, "'max_steps' must be at least 1, not 0"),
    ("pretrain", {"keep_last": 0}, "'keep_last' must be at least 1, not 0"),
    ("pretrain", {"keep_best": -1}, "'keep_best' must be at least 0, not -1"),
    ("pretrain", {"output_dir": "data"}, "'output_dir': data holds the output of 'prepare'"),
    ("evaluate", {"models": "{base: gone}"}, "'models.base': gone: no such folder"),
    ("evaluate", {"models": "{base: data}"}, "'models.base': data holds the output of 'prepare'"),
    ("evaluate", {"data": "gone"}, "'data': gone: no such folder; run `scratch prepare` first"),
    ("export", {"model": "gone"}, "'model': gone: no such folder; run `scratch pretrain` first"),
    ("export", {"model": "data"}, "'model': data holds the output of 'prepare'"),
    (
        "export",
        {"model": "thesis"},
        "'model': thesis holds no model (no config.json)",
    ),
    ("export", {"evaluation": "gone"}, "'evaluation': gone: no such folder; run `scratch evaluate` first"),
]


def text_of(value: object) -> str | None:
    return value if isinstance(value, str) else None


@pytest.mark.parametrize("verb, changes, message", CASES, ids=text_of)
def test_one_line(place, capfd, verb, changes, message):
    (place / "empty.txt").touch()
    (place / "blank").mkdir()
    (place / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (place / "half.jsonl").write_text('{"text": "fine"}\n{"text": "half a fox: \\ud83e"}\n')
    (place / "thesis").mkdir()
    (place / "thesis" / "chapter.txt").write_text("mine")
    CharacterTokenizer.train(["abc"], unknown=False).save(place / "letters")
    if changes.get("tokenizer") == "other":
        shutil.copytree("tokenizer", "other")
        content = json.loads((place / "other" / "tokenizer.json").read_text())
        (place / "other" / "tokenizer.json").write_text(json.dumps(content, indent=1))
    line = refused(place, capfd, verb, changes)
    assert message in line and len(line) < 300


TRL_CASES = [
    ("sft", {"model_name_or_path": "./gone"}, "gone: no such folder; run `scratch pretrain` first"),
    ("sft", {"model_name_or_path": "some/where"}, "'model_name_or_path': no tokenizer at some/where"),
    ("sft", {"model_name_or_path": "data"}, "'model_name_or_path': data holds the output of 'prepare'"),
    ("sft", {"model_name_or_path": "thesis"}, "'model_name_or_path': thesis holds no model (no config.json)"),
    ("sft", {"learning_rte": 1}, "unknown key 'learning_rte'; did you mean 'learning_rate'?"),
    ("sft", {"learning_rate": "fast"}, "'learning_rate' takes a number, not 'fast'"),
    ("sft", {"lr_scheduler_type": "wobbly"}, "wobbly"),
    ("sft", {"datasets": datasets("gone.jsonl")}, "'datasets.data_files': no such file or folder: gone.jsonl"),
    ("sft", {"datasets": datasets("data/instructions/train.jsonl", spilt=1)}, "unknown key 'datasets.spilt'; did"),
    ("sft", {"datasets": "many"}, "'datasets' takes a list of mappings, not 'many'"),
    ("sft", {"datasets": "[]"}, "'datasets' is missing"),
    ("sft", {"datasets": datasets("empty.jsonl")}, "'datasets.data_files': empty.jsonl is empty; run the stage"),
    ("sft", {"datasets": datasets("broken.jsonl")}, "'datasets.data_files': broken.jsonl:2: not valid JSON"),
    ("sft", {"datasets": datasets("data/preferences/train.jsonl")}, "have the columns prompt, chosen, rejected"),
    ("sft", {"datasets": datasets("text.jsonl"), "assistant_only_loss": "true"}, "assistant_only_loss"),
    ("sft", {"datasets": datasets("odd.jsonl")}, "'datasets', record 1: message 1 of 'messages' has no content"),
    ("sft", {"load_in_4bit": "true"}, "'load_in_4bit': quantized weights cannot be trained; add use_peft: true"),
    ("sft", {"load_in_8bit": "true", "use_peft": "true"}, "'load_in_8bit' needs a CUDA device, and there is none"),
    ("sft", {"use_peft": "true"}, "target_modules"),
    ("sft", {"output_dir": "pretrain"}, "'output_dir': pretrain holds the output of 'pretrain'"),
    ("dpo", {"datasets": datasets("data/instructions/train.jsonl")}, "use prompt+chosen+rejected (pref"),
    ("dpo", {"beta": "high"}, "'beta' takes a number, not 'high'"),
    ("dpo", {"max_prompt_lenth": 3}, "unknown key 'max_prompt_lenth'"),
]


@pytest.mark.parametrize("verb, changes, message", TRL_CASES, ids=text_of)
def test_one_line_from_trl(place, capfd, monkeypatch, verb, changes, message):
    """What TRL, transformers and datasets would tell in a page."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (place / "empty.jsonl").touch()
    (place / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (place / "text.jsonl").write_text('{"text": "fine"}\n')
    (place / "odd.jsonl").write_text('{"messages": [{"role": "user"}]}\n')
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (place / "thesis").mkdir()
    (place / "thesis" / "chapter.txt").write_text("mine")
    line = refused(place, capfd, verb, changes)
    assert message in line and len(line) < 400


@pytest.mark.parametrize("verb", ["sft", "dpo", "evaluate", "export", "chat", "serve"])
def test_a_damaged_model(place, capfd, verb):
    """Every verb that opens a model looks at its weights before it does anything else; see engine/test_weights.py."""
    weights = load_file("pretrain/model.safetensors")
    lost = weights.pop("model.layers.1.mlp.up_proj.weight")
    for content, message in (
        (save(weights, {"format": "pt"}), "the weights in pretrain do not match its config.json: 1 missing (model"),
        (save(weights | {"lost": lost}, {"format": "pt"})[:-1], "pretrain: a weights file is damaged"),
    ):
        (place / "pretrain" / "model.safetensors").write_bytes(content)
        if verb in ("chat", "serve"):
            assert main([verb, "pretrain"]) == 2
            (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        else:
            line = refused(place, capfd, verb, {})
        assert message in line and len(line) < 300


# What each verb opens: the key that names it, and a folder with a tokenizer in it.
TOKENIZERS = [
    ("prepare", "tokenizer", "tokenizer"),
    ("pretrain", "tokenizer", "tokenizer"),
    ("sft", "model_name_or_path", "pretrain"),
    ("dpo", "model_name_or_path", "pretrain"),
    ("evaluate", "models.base", "pretrain"),
    ("export", "model", "pretrain"),
]


@pytest.mark.parametrize("verb, key, folder", TOKENIZERS, ids=text_of)
def test_a_damaged_tokenizer_is_named(place, capfd, verb, key, folder):
    file = place / folder / "tokenizer.json"
    file.write_text(file.read_text()[:2000])
    line = refused(place, capfd, verb, {})
    assert f"error: '{key}': {folder}/tokenizer.json is damaged (" in line
    assert f"restore it, or delete {folder} and run its stage again" in line and len(line) < 300


def without_model(text: str) -> str:
    return json.dumps({key: value for key, value in json.loads(text).items() if key != "model"})


def with_an_unknown_merge(text: str) -> str:
    content = json.loads(text)
    content["model"]["merges"].append(["never", "heard"])
    return json.dumps(content)


@pytest.mark.parametrize(
    "file, damage, reason",
    [
        ("tokenizer.json", lambda text: "", "EOF while parsing"),
        ("tokenizer.json", lambda text: "[]", "expected struct Tokenizer"),
        ("tokenizer.json", without_model, "Model missing"),
        ("tokenizer.json", with_an_unknown_merge, "Token `never` out of vocabulary"),
        ("tokenizer_config.json", lambda text: text[:50], "Unterminated string"),
        ("tokenizer_config.json", lambda text: "[1]", "damaged ("),
        ("chat_template.jinja", lambda text: b"\xff\xfe", "can't decode byte"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_way_to_damage_a_tokenizer(place, capfd, file, damage, reason):
    path = place / "tokenizer" / file
    damaged = damage(path.read_text())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    line = refused(place, capfd, "prepare", {})
    assert f"'tokenizer': tokenizer/{file} is damaged (" in line and reason in line and len(line) < 300


def enlarge_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("verb, key, folder", TOKENIZERS[2:], ids=text_of)
def test_a_tokenizer_that_outgrew_its_model(place, capfd, verb, key, folder):
    enlarge_tokenizer(place / folder)
    line = refused(place, capfd, verb, {})
    assert f"error: '{key}': pretrain: the tokenizer has 282 tokens but the model has 280 embeddings" in line
    assert "restore the tokenizer it was trained with, or enlarge it with model.resize_token_embeddings(282)" in line


@pytest.mark.parametrize("verb", ["sft", "chat"])
def test_a_tokenizer_of_the_same_size_that_is_not_the_models(place, capfd, verb):
    content = json.loads((place / "pretrain" / "tokenizer.json").read_text())
    tokens = list(content["model"]["vocab"])
    content["model"]["vocab"] = {token: number for number, token in enumerate(tokens[:4] + tokens[:3:-1])}
    (place / "pretrain" / "tokenizer.json").write_text(json.dumps(content))
    if verb == "chat":
        assert main([verb, "pretrain"]) == 2
        line = capfd.readouterr().err
    else:
        line = refused(place, capfd, verb, {})
    assert "pretrain/tokenizer.json is not the one that pretrain wrote; restore that file" in line


@pytest.mark.parametrize("verb", ["chat", "serve"])
def test_a_tokenizer_of_another_model_is_not_talked_to(place, capfd, verb):
    enlarge_tokenizer(place / "pretrain")
    assert main([verb, "pretrain"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: 'model': pretrain: the tokenizer has 282 tokens but") and error.count("\n") == 1


@pytest.mark.parametrize("verb", ["tokenizer", "prepare", "pretrain", "sft", "evaluate", "export"])
def test_a_missing_option_is_named(place, capfd, verb):
    assert "'output_dir' is missing" in refused(place, capfd, verb, {}, drop="output_dir")


def start(verb: str, changes: dict[str, object]) -> subprocess.Popen:
    command = [sys.executable, "-m", "training", verb, *flags(options(verb) | changes)]
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    "verb, changes, line",
    [
        ("tokenizer", {"data.path": "long.txt", "vocab_size": 60_000}, "tokenizer: interrupted; run the same command"),
        ("prepare", {"data.path": "long.txt"}, "prepare: interrupted; run the same command"),
        ("pretrain", {"max_steps": 100_000, "logging_steps": 1}, "pretrain: stopped after step"),
    ],
)
def test_ctrl_c(place, verb, changes, line):
    """A real signal to a real process in the middle of its work."""
    words = [f"{word}{number}" for number in range(4000) for word in WORDS]
    (place / "long.txt").write_text(" ".join(words * 10))
    before = files(place)
    process = start(verb, changes)
    sign = staging_dir("new") / {"pretrain": "metrics.jsonl"}.get(verb, "provenance.json")
    while not (sign.exists() and sign.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.startswith(line) and len(error.splitlines()) == 1
    assert not Path("new").exists()
    assert {name: content for name, content in files(place).items() if not name.startswith("new.partial")} == before


@pytest.mark.parametrize(
    "verb, file", [("prepare", "train-00000.ds"), ("pretrain", "metrics.jsonl"), ("export", "README.md")]
)
def test_a_file_on_a_full_disk(place, capfd, verb, file):
    """The kernel's own full disk, in the place of one file of the stage's folder."""
    before = files(place)
    chosen = flags(options(verb))
    begin = Stage.begin

    def begin_and_link(stage, *arguments):
        folder = begin(stage, *arguments)
        (folder / file).symlink_to("/dev/full")
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "begin", begin_and_link)
        assert main([verb, *chosen]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: no space left on the disk (") and line.endswith("earlier outputs are intact")
    assert not Path("new").exists()
    (staging_dir("new") / file).unlink()
    assert {name: content for name, content in files(place).items() if not name.startswith("new.partial")} == before
    assert main([verb, *chosen]) == 0  # with room again, the same command works


def test_a_full_disk_at_a_checkpoint(place, small_disk, capfd):
    """The first checkpoint fits and stays; the second does not; with more room, training goes on from the first."""
    before = files(place)
    changes = {"output_dir": "disk/new", "max_steps": 3, "save_steps": 1, "eval_sequences": 4}
    chosen = flags(options("pretrain") | changes)
    size = 0
    while main(["pretrain", *chosen]) == 1:
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: no space left on the disk (")
        assert not Path("disk/new").exists()
        size += 1
        assert size < 20
        subprocess.run(["mount", "-o", f"remount,size={300 + 200 * size}k", small_disk], check=True)
    assert size > 2 and "resuming from step" in capfd.readouterr().out
    assert (small_disk / "new" / "model.safetensors").is_file()
    assert {name: content for name, content in files(place).items() if not name.startswith("disk")} == before
