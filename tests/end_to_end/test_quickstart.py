"""The main job as a person runs it: what it leaves, what it skips, what it runs again, and how it goes on."""

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from terminal import SMALL, flags
from transformers import AutoTokenizer

from modeling_scratch import ScratchForCausalLM

STAGES = {
    "tokenizer": "tokenizer",
    "prepare": "data",
    "pretrain": "pretrain",
    "sft": "sft",
    "dpo": "dpo",
    "evaluate": "evaluate",
    "export": "export",
}
MODEL = {
    "chat_template.jinja",
    "config.json",
    "configuration_scratch.py",
    "decoding_scratch.py",
    "generation_config.json",
    "model.safetensors",
    "loss_scratch.py",
    "modeling_scratch.py",
    "originals_scratch.py",
    "prompts_scratch.py",
    "provenance.json",
    "recipe.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
}
FILES = {
    "tokenizer": {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "provenance.json", "recipe.yaml"},
    "data": {
        *(f"{split}-00000.ds{end}" for split in ("train", "validation") for end in ("", ".index", ".metadata")),
        *(f"{kind}/{split}.jsonl" for split in ("train", "validation") for kind in ("instructions", "preferences")),
        *(f"tasks/{task}_choice.jsonl" for task in ("body", "docstring")),
        *("manifest.json", "provenance.json", "recipe.yaml", "README.md", "samples.md", "funnel.png"),
        *("contaminated.jsonl", "dropped.jsonl"),
    },
    "pretrain": MODEL
    | {"metrics.jsonl", "incidents.jsonl", "samples.jsonl", "loss.png"}
    | {f"insight/{name}" for name in ("probes.json", "steps.jsonl", "heads.jsonl", "maps/00000000.safetensors")},
    "sft": MODEL | {"metrics.jsonl", "loss.png"},
    "dpo": MODEL
    | {"metrics.jsonl", "loss.png"}
    | {f"adapter/{name}" for name in ("adapter_config.json", "adapter_model.safetensors", "README.md", "base.json")},
    "evaluate": {
        "results.json",
        "results.md",
        "comparison.json",
        "comparison.md",
        "comparison.png",
        "items/base.jsonl",
        "items/dpo.jsonl",
        "items/sft.jsonl",
        *(f"tasks/scratch_{task}_choice.yaml" for task in ("body", "docstring")),
        "provenance.json",
        "recipe.yaml",
    },
    "export": MODEL | {"README.md"},
}
MEASURES = [
    "bits per byte",
    "functions: reference answers, bits per byte",
    "preference: margin in nats",
    "functions: answer ends",
    "functions: parses",
    "functions: defines",
    "functions: all of these",
    "preference: accuracy (chance 50%)",
    "body_choice: accuracy (chance 25%)",
    "docstring_choice: accuracy (chance 25%)",
]


@pytest.fixture(scope="module")
def run(quickstart_run):
    return quickstart_run / "runs" / "quickstart"


def provenance(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text())


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of writing of every file."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_one_folder_a_stage(run):
    assert {path.name for path in run.iterdir()} == {*FILES, "summary.json", "summary.md", "summary.png"}
    for stage, expected in FILES.items():
        found = {str(path.relative_to(run / stage)) for path in (run / stage).rglob("*") if path.is_file()}
        extras = {name for name in found - expected if not name.startswith(("checkpoints/", "insight/"))}
        assert expected <= found and not extras, stage
    for picture in ("summary.png", "pretrain/loss.png", "sft/loss.png", "dpo/loss.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")


def test_provenance(run):
    """Each stage names its recipe, seed, inputs, versions, figures, and the command that repeats it."""
    fingerprints = {}
    for stage, folder in STAGES.items():
        record = provenance(run / folder)
        assert record["stage"] == stage and record["metrics"] and record["seconds"] >= 0
        assert record["recipe"]["output_dir"] == f"runs/quickstart/{folder}"
        assert {"python", "torch", "transformers", "tokenizers"} <= record["versions"].keys()
        assert record["inputs"] and all(len(value) == 64 for value in record["inputs"].values())
        assert record["command"].startswith(f"scratch {stage} --config recipes/quickstart/{stage}.yaml")
        fingerprints[stage] = record["fingerprint"]
    for stage in ("tokenizer", "prepare"):
        assert provenance(run / STAGES[stage])["recipe"]["data"]["seed"] == 0
    for stage in ("pretrain", "sft", "dpo", "evaluate"):
        assert provenance(run / stage)["recipe"]["seed"] == 0
    chain = [("prepare", "tokenizer"), ("pretrain", "tokenizer"), ("pretrain", "prepare"), ("sft", "pretrain")]
    chain += [("dpo", "sft"), ("evaluate", "dpo"), ("evaluate", "prepare"), ("export", "dpo"), ("export", "evaluate")]
    for stage, source in chain:
        assert fingerprints[source] in provenance(run / STAGES[stage])["inputs"].values(), (stage, source)
    assert "--max_steps=6" in provenance(run / "pretrain")["command"]


def test_what_it_prints(quickstart_run):
    output = (quickstart_run / "output.txt").read_text()
    for number, (stage, folder) in enumerate(STAGES.items(), start=1):
        assert f"[{number}/7] {stage} (recipes/quickstart/{stage}.yaml)" in output
        assert f"{stage}: wrote runs/quickstart/{folder} (" in output
    for stage in list(STAGES)[1:]:
        assert f"next: scratch {stage} --config recipes/quickstart/{stage}.yaml" in output
    assert output.rstrip().endswith("wrote runs/quickstart/summary.md, summary.json, summary.png")


def test_one_table_a_row_a_model(run):
    lines = (run / "summary.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    header, _, *rows = cells[:5]
    assert header == ["model", *MEASURES]
    assert [row[0] for row in rows] == ["base", "sft", "dpo"]
    summary = json.loads((run / "summary.json").read_text())
    for row in rows:
        assert "-" not in row and len(row) == len(header)
        figures = summary["models"][row[0]]["figures"]
        assert row[1] == f"{figures['data']['validation']['bits per byte']['value']:.3f}"
        assert figures["chats"]["functions"]["parses"]["n"] == 4
        accuracy = figures["pairs"]["preference"]["accuracy"]
        assert accuracy["n"] + accuracy["left_out"] == 8 and accuracy["left_out"] <= 2
    assert summary["seconds"].keys() == STAGES.keys()
    for figures in (run / "evaluate" / "results.md", run / "export" / "README.md"):
        assert all(" | ".join(row) in figures.read_text() for row in rows)


def test_each_stage_leaves_another_model(run):
    """Training changed the weights, and only they changed: one tokenizer, one architecture, adapters merged."""
    base, sft, dpo, export = (weights(run / name) for name in ("pretrain", "sft", "dpo", "export"))
    assert not same(base, sft) and not same(sft, dpo) and same(dpo, export)
    assert base.keys() == sft.keys() == dpo.keys()
    for name in MODEL - {"model.safetensors", "provenance.json", "recipe.yaml"}:
        texts = {(run / stage / name).read_text() for stage in ("pretrain", "sft", "dpo", "export")}
        assert len(texts) == 1, name
    assert not list((run / "dpo").glob("adapter*.*")) and not list((run / "export").glob("adapter*"))
    model, report = ScratchForCausalLM.from_pretrained(run / "dpo", output_loading_info=True)
    assert not any(report.values()) and same(dict(model.state_dict()), dpo)
    assert model.generation_config.eos_token_id == [0, 3] and model.config.use_cache


def test_the_tokenizer_is_ours(run):
    tokenizer = AutoTokenizer.from_pretrained(run / "tokenizer")
    assert len(tokenizer) == SMALL["vocab_size"]
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3]
    text = "def größe(x):\n\treturn x  # 你好\r\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_again_nothing_is_done_twice(terminal, quickstart_run, run):
    before = contents(run)
    done = terminal.scratch("run", "recipes/quickstart", *flags(SMALL), cwd=quickstart_run)
    for stage, folder in STAGES.items():
        assert f"{stage}: runs/quickstart/{folder} is up to date, skipped" in done.stdout
    assert "wrote runs/quickstart/summary.md" in done.stdout
    summaries = {name for name in before if name.startswith("summary.")}
    after = contents(run)
    assert {name: after[name] for name in after.keys() - summaries} == {
        name: before[name] for name in before.keys() - summaries
    }


def test_a_changed_key_runs_what_depends_on_it(terminal, copy_run):
    place = copy_run(*FILES)
    run = place / "runs" / "quickstart"
    before = contents(run)
    done = terminal.scratch("run", "recipes/quickstart", *flags(SMALL | {"dpo.beta": 0.5}), cwd=place)
    skipped = {stage for stage in STAGES if f"{stage}: runs/quickstart/{STAGES[stage]} is up to date" in done.stdout}
    written = {stage for stage in STAGES if f"{stage}: wrote " in done.stdout}
    assert (skipped, written) == ({"tokenizer", "prepare", "pretrain", "sft"}, {"dpo", "evaluate", "export"})
    after = contents(run)
    changed = {name.split("/")[0] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"dpo", "evaluate", "export", "summary.json", "summary.md", "summary.png"}
    assert provenance(run / "dpo")["recipe"]["beta"] == 0.5 and not list(run.glob("*.old"))


def stop(
    terminal, place: Path, command: list[str], when: Callable[[], object], signum: int, group: bool
) -> tuple[int, str]:
    """Start a command and stop it with a signal, with all that it started if `group`. Its exit code and output."""
    log = place / "log"
    process = terminal.start([sys.executable, "-m", "training", *command], place, log)
    while not when():
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True) if group else []
    for running in (process, *children):
        running.send_signal(signum)
    return process.wait(), log.read_text()


@pytest.fixture
def pretraining(copy_run):
    """A place with a tokenizer and data, and the command that pretrains there as `quickstart_run` did."""
    place = copy_run("tokenizer", "data")
    (place / "only").mkdir()
    (place / "only" / "pretrain.yaml").symlink_to(place / "recipes" / "quickstart" / "pretrain.yaml")
    options = {key: value for key, value in SMALL.items() if key.startswith(("pretrain.", "model.", "global_"))}
    return place, ["run", "only", *flags(options)]


def test_killed_it_goes_on(terminal, pretraining, run):
    """SIGKILL to every process, as when the power fails: the same command ends with the same weights."""
    place, command = pretraining
    checkpoint = place / "runs/quickstart/pretrain.partial/checkpoints/step-00000002"
    code, _ = stop(terminal, place, command, checkpoint.is_dir, signal.SIGKILL, group=True)
    assert code == -signal.SIGKILL
    assert not (place / "runs" / "quickstart" / "pretrain").exists()
    done = terminal.scratch(*command, cwd=place)
    assert "pretrain: resuming from step " in done.stdout
    assert same(weights(place / "runs" / "quickstart" / "pretrain"), weights(run / "pretrain"))


def test_interrupted_it_goes_on(terminal, pretraining, run):
    """Ctrl-C ends the step, saves, and says how to go on; the same command ends with the same weights."""
    place, command = pretraining
    log = place / "runs/quickstart/pretrain.partial/metrics.jsonl"
    code, output = stop(terminal, place, command, lambda: log.is_file() and log.read_text(), signal.SIGINT, group=False)
    assert code == 130 and "Traceback" not in output
    assert "saved; rerun the same command to resume" in output.splitlines()[-1]
    done = terminal.scratch(*command, cwd=place)
    assert "pretrain: resuming from step " in done.stdout
    assert same(weights(place / "runs" / "quickstart" / "pretrain"), weights(run / "pretrain"))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_tuning_goes_on(terminal, copy_run, signum):
    """A TRL stage takes up its last whole checkpoint; until it is done, the earlier output stays as it was.

    What it may replace was said when it began, not again.
    """
    place = copy_run("data", "pretrain", "sft")
    sft = place / "runs" / "quickstart" / "sft"
    before = contents(sft)
    options = {"config": "recipes/quickstart/sft.yaml", "max_steps": 12, "save_steps": 2, "logging_steps": 1}
    command = ["sft", *flags(options)]
    half_written = sft.with_name("sft.partial") / "trainer" / "checkpoint-4"
    code, output = stop(terminal, place, [*command, "--restart"], half_written.is_dir, signum, group=True)
    assert code == (130 if signum == signal.SIGINT else -signum) and "Traceback" not in output
    assert contents(sft) == before
    done = terminal.scratch(*command, cwd=place)
    assert "sft: resuming from runs/quickstart/sft.partial/trainer/checkpoint-" in done.stdout
    records = [json.loads(line) for line in (sft / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 13))
    assert not sft.with_name("sft.partial").exists()
