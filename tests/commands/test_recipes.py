"""Every file under recipes/: read strictly by the program it is for; every model recipe runs, its sizes cut down."""

import dataclasses
import importlib
import json
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from tiny_stages import forget_accelerate, write_text
from transformers import AutoModelForCausalLM, AutoTokenizer

import modeling_scratch
from training import cli
from training.commands import run
from training.common.errors import UserError
from training.stages import recipe_folders
from training.stages.flags import set_keys
from training.stages.recipe import STAGES, build, check_bounds
from training.stages.yaml_values import read_yaml
from training.tuning.keys.trl_options import CONFIGURATIONS

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(RECIPES.rglob("*.yaml"))


def name(path: Path) -> str:
    return str(path.relative_to(RECIPES))


def stage_files(*stages: str) -> list[Path]:
    return [path for path in FILES if path.stem in stages and path.parent.name != "accelerate"]


def test_every_file_is_of_a_known_kind():
    for path in FILES:
        assert path.parent.name in ("accelerate", "lm_eval") or path.stem in (*STAGES, "run"), path
        assert path.read_text().startswith(("#", "output_dir")), f"{path} says nothing about itself"
        assert path.suffix == ".yaml"
    assert {path.name for path in RECIPES.iterdir() if path.is_dir()} == {
        "quickstart",
        "shakespeare",
        "tinystories",
        "arithmetic",
        "induction",
        "assistant",
        "10m",
        "124m",
        "1b",
        "7b",
        "70b",
        "arena",
        "accelerate",
        "lm_eval",
    }


def test_the_quickstart_has_the_time_that_the_readme_names():
    minutes = run.read_config(RECIPES / "quickstart", {}).minutes
    assert f"about {minutes:.0f} minutes on two CPU cores" in (RECIPES.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", stage_files(*set(STAGES) - set(CONFIGURATIONS)), ids=name)
def test_stage_recipes_are_understood(path):
    module = importlib.import_module(f"training.commands.{path.stem}")
    config = build(getattr(module, f"{path.stem.capitalize()}Config"), read_yaml(path), str(path))
    folder = "data" if path.stem == "prepare" else path.stem
    assert config.output_dir == f"runs/{path.parent.name}/{folder}"


@pytest.mark.parametrize("path", stage_files(*CONFIGURATIONS), ids=name)
def test_trl_recipes_are_understood_by_us_and_by_the_stock_program(path):
    import trl

    from training.tuning.pipeline.recipe import parse_recipe, read_recipe, trl_classes

    ours = parse_recipe(path.stem, *read_recipe(path.stem, ["--config", str(path)], ""))
    assert ours.training.output_dir == f"runs/{path.parent.name}/{path.stem}"

    # The stock program needs to be told what we fill in ourselves.
    arguments = ["--config", str(path), "--use_cpu", "true", "--bf16", str(ours.training.bf16)]
    script, training, model, datasets = trl.TrlParser(trl_classes(path.stem)).parse_args_and_config(arguments)
    assert (model.model_name_or_path, datasets) == (ours.model.model_name_or_path, ours.datasets)
    assert training.learning_rate == ours.training.learning_rate and script == ours.script


@pytest.mark.parametrize("path", sorted(RECIPES.glob("**/accelerate/*.yaml")), ids=name)
def test_accelerate_reads_its_files(path):
    config = load_config_from_file(str(path))
    if path.parent.parent == RECIPES:
        kinds = {"cpu": "MULTI_GPU", "ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
        assert config.distributed_type == kinds.get(path.stem, "FSDP")
        assert (config.num_machines > 1) == (path.stem == "multi-node")
    else:
        assert path.stem in STAGES and config.num_machines == -(-config.num_processes // 8)
    assert config.num_processes > 1 and config.mixed_precision in ("no", "bf16")
    sizes = [size for key, size in (config.parallelism_config or {}).items() if key.endswith("_size")]
    assert not sizes or math.prod(sizes) == config.num_processes
    wrapped = (config.fsdp_config or {}).get("fsdp_transformer_layer_cls_to_wrap")
    assert config.distributed_type != "FSDP" or hasattr(modeling_scratch.modeling_scratch, wrapped)


def test_lm_eval_reads_its_files(tmp_path, monkeypatch):
    from lm_eval.tasks import TaskManager

    tasks = [yaml.safe_load(path.read_text())["task"] for path in sorted((RECIPES / "lm_eval").iterdir())]
    item = {"query": "def f():", "choices": ["    return 1", "    return 2"], "gold": 0}
    for task in tasks:
        file = tmp_path / "runs" / "quickstart" / "data" / "tasks" / f"{task.removeprefix('scratch_')}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(item) + "\n")
    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(RECIPES / "lm_eval"), include_defaults=False)
    assert set(tasks) <= set(manager.all_tasks)
    loaded = manager.load(tasks)["tasks"] if hasattr(manager, "load") else manager.load_task_or_group(tasks)
    assert set(loaded) == set(tasks)


# The smallest recipe of each stage. Keys that mean something only beside others stand there with these.
PLAIN = {
    "tokenizer": {"output_dir": "out", "data.path": "a"},
    "prepare": {"output_dir": "out", "tokenizer": "b", "data.path": "a"},
    "pretrain": {"output_dir": "out", "tokenizer": "b", "data": "a"},
    "classify": {"output_dir": "out", "model": "b", "data.train": "a", "data.validation": "a"},
    "evaluate": {"output_dir": "out", "models": {"one": "b"}, "tasks": ["small"]},
}
BESIDE = {
    r"data\.(max_tokens|temperature)": {"data.path": "python", "data.sources.one.path": "a"},
    r".*max_group_share": {"data.max_bytes": 1000},
    r"engine\..*": {"engine.kind": "slurm", "engine.partition": "c"},
}


def numeric_keys(cls: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, list[float]]]:
    """Each key of a configuration that takes a number, its field, and a few numbers within its bounds."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from numeric_keys(hint, f"{prefix}{field.name}.")
            continue
        kinds = set(typing.get_args(hint) or (hint,)) - {type(None)}
        numbers = []
        for number in (1, 2, 3, 7, 8, 12, 48, 300, 5000) if int in kinds else (0.1, 0.5, 1.0, 2.0):
            try:
                check_bounds(number, field.metadata.get("bounds", {}), "", field.name)
                numbers.append(number)
            except UserError:
                continue
        if kinds & {int, float}:
            yield prefix + field.name, field, numbers


@pytest.mark.parametrize("stage", PLAIN)
def test_a_key_alone_is_not_rejected_because_of_the_default_of_another(stage):
    """Then the default follows, or the error is about this key."""
    cls = importlib.import_module(f"training.commands.{stage}").CONFIG
    tried = 0
    for key, field, numbers in numeric_keys(cls):
        beside = next((others for pattern, others in BESIDE.items() if re.fullmatch(pattern, key)), {})
        for number in numbers:
            tried += 1
            given = PLAIN[stage] | beside | {key: number}
            try:
                build(cls, set_keys({}, given), "recipe")
            except UserError as error:
                named = {word.strip("'") for word in re.findall(r"'[\w.]+'|\b[a-z]+_[\w.]+", str(error))}
                assert named <= {*given, key, field.name}, f"{key}={number}: {error}"
    assert tried > 10


SIZES = {
    "data.validation_fraction": 0.2,
    "tokenizer.vocab_size": 280,
    "pretrain.max_steps": 2,
    "pretrain.sequence_length": 16,
    "pretrain.global_batch_size": 4,
    "pretrain.per_device_train_batch_size": 2,
    "pretrain.eval_sequences": 2,
    "pretrain.torch_compile": "false",
    "pretrain.sample_tokens": 2,
    "model.hidden_size": 32,
    "model.num_hidden_layers": 2,
    "model.num_attention_heads": 2,
}
NARROW = {"model.intermediate_size": 48}
MODELS = {
    "shakespeare": {},
    "shakespeare (BPE)": {"tokenizer.kind": "bpe"},
    "induction": {"pretrain.insight.tokens": 16},
    "tinystories": {},
    "124m": NARROW,
    "1b": NARROW | {"model.num_key_value_heads": 1},
    "7b": NARROW | {"model.num_key_value_heads": 1},
    "70b": NARROW | {"model.num_key_value_heads": 1},
}


def cut_down(folder: str, **options: object) -> list[str]:
    """Overrides of a recipe: a file in the current folder in place of each source, small sizes, these options."""
    sources = read_yaml(RECIPES / folder / "prepare.yaml")["data"].get("sources", {})
    paths = {f"data.sources.{source}.path": f"{source}.txt" for source in sources} or {"data.path": "text.txt"}
    for file in map(Path, paths.values()):
        text = write_text(file).read_text()
        file.write_text(text.replace("cat", file.stem))  # no two sources may have the same documents
    given = paths | SIZES | options
    if folder == "shakespeare" and "tokenizer.kind" not in options:
        del given["tokenizer.vocab_size"]
    return [f"--{key}={value}" for key, value in given.items()]


@pytest.mark.parametrize("model", MODELS)
def test_model_recipes_run_for_two_steps(model, tmp_path, monkeypatch):
    """`scratch run` with other sizes, the stages in this process."""
    folder = model.split()[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: cli.main([stage, "--config", str(path), *rest]))
    monkeypatch.setattr(recipe_folders, "STAGES", STAGES[:3])  # the others come from the templates of 10m, see below
    assert cli.main(["run", str(RECIPES / folder), *cut_down(folder, **MODELS[model])]) == 0
    forget_accelerate()

    output = tmp_path / "runs" / folder
    files = {"tokenizer", "data", "pretrain", "summary.json", "summary.md", "summary.png"}
    assert {path.name for path in output.iterdir()} == files
    records = [json.loads(line) for line in (output / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 2 and records[-1]["validation_loss"] > 0
    trained = AutoModelForCausalLM.from_pretrained(output / "pretrain")
    recipe = read_yaml(RECIPES / folder / "pretrain.yaml")
    assert trained.config.hidden_size == 32 and trained.config.num_hidden_layers == 2
    expected = modeling_scratch.ScratchConfig.from_preset(recipe["preset"])
    assert (trained.config.norm_type, trained.config.mlp_type) == (expected.norm_type, expected.mlp_type)
    assert trained.config.vocab_size == math.ceil(len(AutoTokenizer.from_pretrained(output / "pretrain")) / 64) * 64


MESSAGES = [{"role": "user", "content": "Who sat?"}, {"role": "assistant", "content": "The cat sat."}]
PAIR = {"chosen": MESSAGES, "rejected": [MESSAGES[0], {"role": "assistant", "content": "A table."}]}


@pytest.mark.slow
def test_all_stages_of_a_written_recipe_run_for_two_steps(tmp_path, monkeypatch, capsys):
    """The folder 10m, with a few records in place of the data sets on the Hub; then its plan is checked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: cli.main([stage, "--config", str(path), *rest]))
    tuning = {}
    for stage, record in {"sft": {"messages": MESSAGES}, "dpo": PAIR}.items():
        (tmp_path / f"{stage}.jsonl").write_text((json.dumps(record) + "\n") * 8)
        data = f"[{{path: json, data_files: {{train: {stage}.jsonl}}, split: train}}]"
        sizes = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "warmup_steps": 0}
        tuning |= {f"{stage}.{key}": value for key, value in ({"datasets": data, "max_length": 16} | sizes).items()}
    overrides = cut_down("10m", **NARROW, **tuning, **{"evaluate.tasks": "[]"})
    assert cli.main(["run", str(RECIPES / "10m"), *overrides]) == 0
    forget_accelerate()
    output = tmp_path / "runs" / "10m"
    stages = {"tokenizer", "data", "pretrain", "sft", "dpo", "evaluate", "export"}
    assert stages <= {path.name for path in output.iterdir()}
    assert AutoModelForCausalLM.from_pretrained(output / "export").config.hidden_size == 32

    capsys.readouterr()
    assert cli.main(["plan", "--check", "runs/10m"]) == 0
    rows = {row.split("  ")[0] for row in capsys.readouterr().out.splitlines()}
    assert {"seconds per step", "peak memory", "tokens of 2 steps"} <= rows
