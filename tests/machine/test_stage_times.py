"""Estimates of stage times, and the steps that fit into some minutes."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.machine.resources import Machine
from training.machine.stage_times import LEAST, START, Folder, estimate, fit_steps
from training.stages.yaml_values import read_yaml

RECIPES = Path(__file__).parents[2] / "recipes"
EPYC = Machine("two cores of an AMD EPYC", 2, 2, 0.0, 8 * 2**30, bf16=True, gpu=None, rate=425e9)
XEON = Machine("two cores of an Intel Xeon", 2, 2, 0.0, 8 * 2**30, bf16=False, gpu=None, rate=270e9)


def recipes(name: str) -> Folder:
    """A folder of recipes, in the order of running."""
    stages = ("tokenizer", "prepare", "pretrain", "sft", "dpo", "evaluate", "export")
    files = {stage: RECIPES / name / f"{stage}.yaml" for stage in stages}
    return Folder({stage: read_yaml(file) for stage, file in files.items() if file.is_file()})


def minutes(folder: Folder, machine: Machine) -> float:
    return sum(estimate(folder, stage, machine) for stage in folder.recipes) / 60


def scale(machine: Machine, factor: float) -> Machine:
    return replace(machine, rate=factor * machine.rate)


def with_steps(folder: Folder, steps: dict[str, int]) -> Folder:
    changed = {stage: folder.recipes[stage] | {"max_steps": count} for stage, count in steps.items()}
    return Folder(folder.recipes | changed)


def test_the_size_of_the_network():
    assert recipes("quickstart").weights == 2_555_904


def test_what_was_measured():
    """Seconds of the quickstart's steps in bf16, and minutes of all in fp32 with a network of width 256."""
    for stage, seconds in {"pretrain": 0.41, "sft": 0.38, "dpo": 1.49}.items():
        steps = recipes("quickstart").steps(stage)
        assert estimate(recipes("quickstart"), stage, EPYC) == pytest.approx(START + steps * seconds, rel=0.1)
    recipe = recipes("quickstart").recipes
    wide = Folder(recipe | {"pretrain": recipe["pretrain"] | {"model": {"hidden_size": 256, "num_hidden_layers": 4}}})
    assert minutes(with_steps(wide, {"pretrain": 550, "sft": 200, "dpo": 70}), XEON) == pytest.approx(27.4, rel=0.1)


@pytest.mark.parametrize("factor", [0.8, 1, 2, 4])
@pytest.mark.parametrize("machine", [EPYC, XEON])
def test_the_fitted_steps_take_the_minutes(machine, factor):
    machine, folder = scale(machine, factor), recipes("quickstart")
    steps = fit_steps(folder, machine, 14)
    assert steps.keys() == {"pretrain", "sft", "dpo"}
    assert minutes(with_steps(folder, steps), machine) <= 14.2 or steps["pretrain"] == LEAST * 830


def test_a_faster_machine_trains_longer():
    folder, faster = recipes("quickstart"), scale(EPYC, 2)
    before, after = fit_steps(folder, EPYC, 14), fit_steps(folder, faster, 14)
    assert all(after[stage] > 1.8 * before[stage] for stage in before)


def test_no_more_steps_than_the_data_are_good_for():
    folder = recipes("quickstart")
    steps = fit_steps(folder, scale(EPYC, 1e6), 600)
    assert steps == {stage: int(folder.most_steps(stage)) for stage in steps}
    assert steps["sft"] == 2 * 6000 // 16


def test_no_fewer_than_teach_something():
    steps = fit_steps(recipes("quickstart"), scale(EPYC, 0.01), 14)
    assert steps == {"pretrain": 166, "sft": 60, "dpo": 20}


def test_a_stage_without_a_rule_is_not_guessed():
    folder = Folder(recipes("quickstart").recipes | {"grpo": {}})
    assert estimate(folder, "grpo", EPYC) is None
    assert fit_steps(folder, EPYC, 14) == {}
    assert estimate(Folder({"sft": {"max_steps": 5}}), "sft", EPYC) is None  # of a network that is not known
    assert estimate(folder, "export", EPYC) == 2 * START
