"""Recipe folders that the planner writes: the shipped ones are its output, and what cannot be written."""

import dataclasses
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from messages import refused
from terminal import ROOT

from training.commands import run
from training.planner.architecture import Architecture
from training.planner.layout import Layout, Shape
from training.planner.plan import make_plan
from training.planner.recipes.shipped import SHIPPED, shipped_plan
from training.planner.recipes.writer import recipe_files, write_recipe

TINY = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def plans():
    return {name: shipped_plan(name) for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_recipe_is_what_the_writer_writes(plans, name):
    """`training/planner/recipes/shipped.py` says how to write them again."""
    folder = ROOT / "recipes" / name
    written = recipe_files(plans[name], Path("recipes", name))
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(written)
    for file, text in written.items():
        assert (folder / file).read_text() == text, file


def tiny_plan(plans, devices: int = 1, sharding: str = "none", tensor_parallel: int = 1, **options):
    """A plan of a tiny model on the GPUs of the recipe 1b."""
    layout = Layout(plans["1b"].layout.device, devices, sharding, tensor_parallel)
    architecture = Architecture.from_preset("llama", **(TINY | options))
    return make_plan(architecture, Shape(64, 2, 32, 100, optimizer="adamw"), layout)


@pytest.mark.parametrize(
    "devices, sharding, tensor_parallel", [(1, "none", 1), (4, "ddp", 1), (8, "zero3", 1), (16, "fsdp2", 4)]
)
def test_a_written_recipe_is_read_by_its_stages_and_by_accelerate(
    plans, tmp_path, monkeypatch, devices, sharding, tensor_parallel
):
    monkeypatch.chdir(tmp_path)
    write_recipe(tiny_plan(plans, devices, sharding, tensor_parallel), Path("mine"))
    configs = run.open_run(Path("mine"), run.RunConfig(), []).configs
    assert list(configs) == ["tokenizer", "prepare", "pretrain", "sft", "dpo", "evaluate", "export"]
    assert configs["pretrain"].max_steps == 100 and configs["pretrain"].output_dir == "runs/mine/pretrain"
    for stage in configs:
        file = Path("mine", "accelerate", f"{stage}.yaml")
        assert file.is_file() == (devices > 1 and stage in ("pretrain", "sft", "dpo"))
        if stage == "pretrain" and file.is_file():
            launched = load_config_from_file(str(file))
            assert launched.num_processes == devices and launched.num_machines == -(-devices // 8)
            sizes = launched.parallelism_config or {}
            assert sizes.get("parallelism_config_tp_size", 1) == tensor_parallel
            assert sizes.get("parallelism_config_dp_shard_size", 4) * tensor_parallel in (devices, 4)


def test_a_stage_with_a_launch_file_is_started_by_accelerate(plans, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(run, "run_child", lambda command: started.append(command) or 0)
    write_recipe(tiny_plan(plans, 4, "ddp"), tmp_path / "one")
    run.run_stage("pretrain", tmp_path / "one" / "pretrain.yaml", [])
    run.run_stage("prepare", tmp_path / "one" / "prepare.yaml", [])
    file = str(tmp_path / "one" / "accelerate" / "pretrain.yaml")
    assert started[0][1:5] == ["-m", "accelerate.commands.launch", "--config_file", file]
    assert [command[command.index("training") - 1 :][:3] for command in started] == [
        ["-m", "training", "pretrain"],
        ["-m", "training", "prepare"],
    ]
    assert "accelerate.commands.launch" not in started[1]
    write_recipe(tiny_plan(plans, 16, "fsdp2"), tmp_path / "two")
    with refused("pretrain", "2 machines", "docs/cluster.md"):
        run.run_stage("pretrain", tmp_path / "two" / "pretrain.yaml", [])


def test_what_cannot_be_written_is_refused(plans, tmp_path):
    plan = tiny_plan(plans)
    with refused("output_dir", tmp_path, "new folder"):
        write_recipe(plan, tmp_path)
    small = dataclasses.replace(plan.layout.device, memory_gb=0.5)
    with refused("output_dir", "does not fit"):
        layout = dataclasses.replace(plan.layout, device=small)
        write_recipe(make_plan(plan.architecture, plan.shape, layout), tmp_path / "large")
    other = dataclasses.replace(plan, architecture=dataclasses.replace(plan.architecture, mlp_type="geglu"))
    with refused("output_dir", "no preset"):
        write_recipe(other, tmp_path / "geglu")
    with refused("tensor_parallel", "two or more groups", "16 devices"):
        write_recipe(tiny_plan(plans, 8, "fsdp2", 8, num_attention_heads=8), tmp_path / "alone")
    muon = dataclasses.replace(plan.shape, optimizer="muon")
    with refused("optimizer", "adamw"):
        write_recipe(dataclasses.replace(tiny_plan(plans, 4, "zero2"), shape=muon), tmp_path / "muon")
    assert not list(tmp_path.iterdir())
