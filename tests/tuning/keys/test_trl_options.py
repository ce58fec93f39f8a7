"""The table of TRL's options: as the installed TRL has them, and what help, checks and fingerprints make of it."""

import subprocess
import sys
from pathlib import Path

import pytest
from messages import refused

from training.stages.yaml_values import read_yaml
from training.tuning.keys import trl_options

ROOT = Path(__file__).parents[3]


def test_the_table_is_that_of_the_installed_trl():
    """Made again with: python -m training.tuning.keys.trl_options"""
    if not trl_options.is_complete():
        pytest.skip(f"the table is of other versions than {trl_options.installed_versions()}")
    assert trl_options.collect() == trl_options._table()


@pytest.fixture
def complete(monkeypatch):
    """As if the versions of the table were installed."""
    monkeypatch.setattr(trl_options, "installed_versions", lambda: trl_options._table()["versions"])


@pytest.mark.parametrize("stage", trl_options.CONFIGURATIONS)
def test_every_stage_has_help_in_sections(stage, complete, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit) as stop:
        trl_options.answer_questions(stage, ["--help"], "About.")
    assert not stop.value.code
    page = capsys.readouterr().out
    headings = [line for line in page.splitlines() if line and line[0] != " "]
    assert headings[:3] == ["About.", "Data", "Model and adapter"]
    assert headings[-2:] == ["Training (transformers)", "Recipe"]
    for line in ("--lora_r INT                    LoRA R value (at least 1, default 16)", "--datasets [MAPPING, ...]"):
        assert line in page, line
    assert "--eval_strategy no|steps|epoch" in page


def test_other_versions_are_left_to_trl(monkeypatch):
    monkeypatch.setattr(trl_options, "installed_versions", lambda: {"trl": "2.0", "transformers": None})
    assert trl_options.answer_questions("sft", ["--help"], "About.") is None


def test_values_have_the_types_that_trl_gives_them(complete):
    given = {"learning_rate": "1e-4", "num_train_epochs": 2, "max_length": None, "datasets": [{"path": "json"}]}
    checked = trl_options.check_values("sft", given, "here")
    assert checked == given | {"learning_rate": 1e-4, "num_train_epochs": 2.0}
    assert isinstance(checked["num_train_epochs"], float)


def test_text_of_the_command_line_is_text_and_paths_are_expanded(complete, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    data = "[{path: json, data_files: {train: [~/x.jsonl, y.jsonl]}}]"
    words = ["--output_dir", "exp #2", "--model_name_or_path=~/m", "--run_name=1e3", "--restart", f"--datasets={data}"]
    values, _ = trl_options.read_values("sft", [*words, "--max_length=null", "--eos_token=null", "--seed=3"])
    assert values == {
        "output_dir": "exp #2",
        "model_name_or_path": "/home/ada/m",
        "run_name": "1e3",
        "datasets": [{"path": "json", "data_files": {"train": ["/home/ada/x.jsonl", "y.jsonl"]}}],
        "max_length": None,
        "eos_token": None,
        "seed": 3,
    }


@pytest.mark.parametrize(
    "values, facts",
    [
        ({"learning_rte": 1}, ["here", "unknown key 'learning_rte'", "learning_rate"]),
        ({"max_steps": "many"}, ["here", "'max_steps'", "a whole number", "many"]),
        ({"use_peft": 3}, ["'use_peft'", "true or false"]),
    ],
)
def test_mistakes_are_named(values, facts):
    with refused(None, *facts):
        trl_options.check_values("sft", values, "here")


def test_a_printed_recipe_is_the_same_recipe(complete, tmp_path, capsys):
    recipe = ROOT / "recipes" / "quickstart" / "dpo.yaml"
    with pytest.raises(SystemExit):
        trl_options.answer_questions("dpo", ["--config", str(recipe), "--print_config", "--use_rslora"], "")
    printed = tmp_path / "dpo.yaml"
    printed.write_text(capsys.readouterr().out)
    expected = trl_options.check_values("dpo", read_yaml(recipe) | {"use_rslora": True}, "")
    assert read_yaml(printed) == expected
    assert "# LoRA R value. (INT)\n" in printed.read_text() and "\n# max_grad_norm: " in printed.read_text()


def test_all_of_this_without_trl():
    code = (
        "import sys; from training.tuning.keys.trl_options import describe, check_values; describe('grpo');"
        "check_values('grpo', {'beta': 1}, ''); assert not {'torch', 'transformers', 'trl'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
