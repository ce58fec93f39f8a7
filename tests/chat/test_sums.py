"""The recipes of sums with the file that docs/tuning.md writes, and the stock programs on recipes of these stages."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from tiny_stages import flags, forget_accelerate, write_data, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from training import cli
from training.chat.rewards import REWARDS
from training.engine.stage import read_provenance

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
SMALL = {"max_steps": 2, "per_device_train_batch_size": 4, "warmup_steps": 0, "use_cpu": "true", "bf16": "false"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    place = tmp_path_factory.mktemp("outputs")
    write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(place / "pretrain", place / "tokenizer")
    return place


@pytest.fixture
def place(outputs, tmp_path, monkeypatch):
    shutil.copytree(outputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "sums.jsonl" in block)
    exec(code, {})
    yield tmp_path
    forget_accelerate()


def test_the_sums_are_right_and_rewarded(place):
    records = [json.loads(line) for line in (place / "sums.jsonl").read_text().splitlines()]
    assert len(records) > 1000 and len({record["prompt"][0]["content"] for record in records}) > 0.85 * len(records)
    columns = {key: [record[key] for record in records] for key in records[0]}
    right = columns.pop("completion")
    for name in ("number", "format"):
        paid = REWARDS[name](completions=right, prompts=columns["prompt"], **columns)
        assert set(paid) == {1.0}
        others = [right[-1], *right[:-1]]
        paid = REWARDS[name](completions=others, prompts=columns["prompt"], **columns)
        assert (sum(paid) < 0.1 * len(paid)) == (name == "number")
    for record in records:
        assert eval(record["prompt"][0]["content"].rstrip(" =")) == int(record["answer"])


def test_both_halves_run(place):
    for half, start in (("sft", "pretrain"), ("grpo", "runs/arithmetic/sft")):
        arguments = [f"--config={ROOT / 'recipes' / 'arithmetic' / half}.yaml", f"--model_name_or_path={start}"]
        size = {"num_generations": 2, "max_completion_length": 4, "logging_steps": 1} if half == "grpo" else {}
        assert cli.main([half, *arguments, *flags(SMALL | size)]) == 0
        forget_accelerate()
    figures = read_provenance("runs/arithmetic/grpo")["metrics"]
    assert figures["steps"] == 2 and {"reward", "kl"} <= figures.keys()
    assert (place / "runs" / "arithmetic" / "grpo" / "reward.png").is_file()


@pytest.mark.parametrize("verb", ["grpo", "reward"])
def test_the_stock_program(terminal, place, verb):
    """In a process of its own, from the model's own code files; the rewards alone come from this package."""
    overrides = SMALL | {"model_name_or_path": "pretrain", "output_dir": "stock", "report_to": "none"}
    if verb == "grpo":
        overrides |= {"num_generations": 2, "max_completion_length": 4}
        command = [
            Path(sys.executable).with_name("trl"),
            "grpo",
            "--config",
            ROOT / "recipes" / "arithmetic" / "grpo.yaml",
        ]
    else:
        recipe = {"trust_remote_code": True, "gradient_checkpointing": False}
        recipe["datasets"] = [{"path": "json", "data_files": {"train": "data/preferences/train.jsonl"}}]
        (place / "reward.yaml").write_text(json.dumps(recipe))
        command = [Path(sys.executable).with_name("trl"), "reward", "--config", "reward.yaml"]
    pairs = [part for key, value in overrides.items() for part in (f"--{key}", value)]
    done = terminal.run([*command, *pairs], place)
    assert "Training completed" in done.stdout
    kind = AutoModelForSequenceClassification if verb == "reward" else AutoModelForCausalLM
    assert kind.from_pretrained("stock", trust_remote_code=True).config.model_type == "scratch"


def test_a_reward_model_in_two_processes(terminal, place):
    """One voice, one output; the held-out pairs of both processes are counted once each."""
    (place / "reward.yaml").write_text("trust_remote_code: true\ngradient_checkpointing: false\n")
    data = [{"path": "json", "data_files": {"train": "data/preferences/train.jsonl"}}]
    overrides = {"model_name_or_path": "pretrain", "output_dir": "new", "datasets": json.dumps(data)}
    overrides |= {"test_split_size": 0.4, "eval_strategy": "epoch", "per_device_eval_batch_size": 2}
    launch = [Path(sys.executable).with_name("accelerate"), "launch", "--config_file"]
    launch += [ROOT / "recipes" / "accelerate" / "cpu.yaml", "-m", "training.reward", "--config", "reward.yaml"]
    done = terminal.run([*launch, *flags(SMALL | overrides)], place, ACCELERATE_USE_CPU="true")
    assert done.stdout.count("reward: wrote new") == 1
    assert read_provenance("new")["metrics"]["accuracy"]["n"] == 3
