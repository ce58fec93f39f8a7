"""The stock programs train on every recipe of theirs that is here, in one process and in two."""

import json

import pytest
from terminal import ROOT
from tiny_stages import write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from training.stages.yaml_values import read_yaml

VERBS = ("sft", "reward", "dpo", "grpo")  # the stages that have a stock program
# Those that the planner writes read the Hub.
RECIPES = sorted(
    path
    for path in (ROOT / "recipes").glob("*/*.yaml")
    if path.stem in VERBS and not path.with_name("plan.json").exists()
)
# What every run of the tests runs: these in two processes, and in one a recipe of each other trainer. All combinations
# are run before a release.
LAUNCHED = ("quickstart/sft", "arithmetic/grpo")
ALONE = ("quickstart/dpo", "assistant/reward")
ON_THE_CPU = {"use_cpu": "true", "bf16": "false", "report_to": "none"}
SMALL = {"max_steps": 2, "per_device_train_batch_size": 4, "warmup_steps": 0, "logging_steps": 1}
COUNT = 32  # records of each file
GENERATION = {"num_generations": 2, "max_completion_length": 4}

QUESTION = [{"role": "user", "content": "Who sat on the mat?"}]
RIGHT, WRONG = ([{"role": "assistant", "content": f"The {who} sat on the mat."}] for who in ("cat", "table"))
PAIR = {"prompt": QUESTION, "completion": RIGHT}
PREFERENCE = {"prompt": QUESTION, "chosen": RIGHT, "rejected": WRONG}
SUM = [{"role": "user", "content": "1 + 2 ="}]
RECORDS = {
    "quickstart/data/instructions/train.jsonl": {"messages": QUESTION + RIGHT},
    "quickstart/data/preferences/train.jsonl": PREFERENCE,
    "assistant/tuning/instructions.jsonl": PAIR,
    "assistant/tuning/pairs/train.jsonl": PREFERENCE,
    "assistant/tuning/pairs/test.jsonl": PREFERENCE,
    "arena/preferences.jsonl": PREFERENCE,
    "arithmetic/sums/sft.jsonl": {"prompt": SUM, "completion": [{"role": "assistant", "content": "3"}]},
    "arithmetic/sums/grpo.jsonl": {"prompt": SUM, "answer": "3", "pattern": r"\d+"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and the files that the recipes name, of a few equal records each."""
    place = tmp_path_factory.mktemp("stock")
    (place / "recipes").symlink_to(ROOT / "recipes")
    write_model(place / "model", write_tokenizer(place / "tokenizer"))
    for name, record in RECORDS.items():
        file = place / "runs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((json.dumps(record) + "\n") * COUNT)
    return place


def name_of(recipe):
    return f"{recipe.parent.name}/{recipe.stem}"


def cases():
    for recipe in RECIPES:
        for processes, every_time in ((1, ALONE), (2, LAUNCHED)):
            marks = () if name_of(recipe) in every_time else pytest.mark.release
            yield pytest.param(recipe, processes, id=f"{name_of(recipe)}-{processes}", marks=marks)


@pytest.mark.parametrize("recipe, processes", cases())
def test_two_steps(terminal, place, tmp_path, recipe, processes):
    """Only the rewards of sums come from this package; the network comes from the model's own code files."""
    verb = recipe.stem
    overrides = ON_THE_CPU | SMALL | {"model_name_or_path": "model", "output_dir": tmp_path / "out"}
    overrides |= GENERATION if verb == "grpo" else {}
    launcher, environment = [], {}
    if processes > 1:
        launcher = ["--accelerate_config", "recipes/accelerate/cpu.yaml"]
        environment = {"ACCELERATE_USE_CPU": "true"}
    given = [part for key, value in overrides.items() for part in (f"--{key}", value)]
    arguments = [verb, "--config", recipe.relative_to(ROOT), *launcher, *given]
    printed = terminal.train_with_trl(arguments, place, **environment)
    answers = GENERATION["num_generations"] if verb == "grpo" else 1
    assert f"'epoch': '{2 * 4 * processes / answers / COUNT:.4g}'" in printed  # the processes share the data
    if read_yaml(recipe).get("use_peft"):
        assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    else:
        kind = AutoModelForSequenceClassification if verb == "reward" else AutoModelForCausalLM
        assert kind.from_pretrained(tmp_path / "out", trust_remote_code=True).config.model_type == "scratch"
