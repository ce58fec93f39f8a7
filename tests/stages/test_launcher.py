"""Launch files beside a recipe: which start a stage, and which are for other machines as well."""

import pytest
from messages import refused

from training.stages.launcher import launcher_of


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "accelerate").mkdir()
    return tmp_path / "pretrain.yaml"


def test_a_stage_starts_with_its_own_launch_file(recipe):
    file = recipe.parent / "accelerate" / "pretrain.yaml"
    file.write_text("num_machines: 1\nnum_processes: 8\n")
    assert launcher_of("pretrain", recipe) == ["-m", "accelerate.commands.launch", "--config_file", str(file)]
    assert launcher_of("sft", recipe) == []


@pytest.mark.parametrize(
    "machines, key, facts",
    [("2", "pretrain", ("2 machines", "accelerate launch")), ("'2'", "num_machines", ("'2'", "whole number"))],
    ids=["two", "text"],
)
def test_a_launch_file_that_one_machine_cannot_start(recipe, machines, key, facts):
    (recipe.parent / "accelerate" / "pretrain.yaml").write_text(f"num_machines: {machines}\n")
    with refused(key, *facts):
        launcher_of("pretrain", recipe)
