"""`scratch run`: the recipes of a folder in order, overrides to the stages that know them, and what stops it."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from light import imports_nothing_heavy
from messages import refused
from tiny_stages import write_text

from training.cli import main
from training.commands import run
from training.commands.prepare import PrepareConfig
from training.common.errors import UserError
from training.eval.harness.task_files import local_tasks
from training.machine.resources import Machine
from training.stages.flags import parse, read_flags, split_overrides
from training.stages.provenance import LANGUAGE_MODELS
from training.stages.recipe import STAGES, build
from training.stages.stage import OWNED, Stage
from training.stages.yaml_values import read_yaml
from training.tuning.keys import trl_options
from training.tuning.pipeline.recipe import inputs_of, runtime_keys_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """Recipes of three stages, written in another order than they run."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for stage, text in {
        "pretrain": "output_dir: runs/x/pretrain\ndata: runs/x/data\n"
        "tokenizer: runs/x/tokenizer\nseed: 0\nmodel: {hidden_size: 8}\n",
        "prepare": "output_dir: runs/x/data\ntokenizer: runs/x/tokenizer\ndata: {path: a.txt, seed: 0}\n",
        "tokenizer": "output_dir: runs/x/tokenizer\ndata: {path: a.txt, seed: 0}\n",
    }.items():
        (recipes / f"{stage}.yaml").write_text(text)
    (recipes / "notes.yaml").write_text("not: a stage\n")
    return recipes


def contents(folder):
    return {stage: run.read_yaml(path) for stage, path in run.recipes_in(folder).items()}


def test_stages_in_the_order_of_running(folder):
    assert list(run.recipes_in(folder)) == ["tokenizer", "prepare", "pretrain"]
    assert STAGES.index("sft") < STAGES.index("dpo") < STAGES.index("evaluate") < STAGES.index("export")


def test_overrides_go_where_the_key_is(folder):
    data = ["--data.path", "b.txt", "--data.seed=1"]
    training = ["--model.hidden_size=16", "--pretrain.max_steps", "3", "--seed=2"]
    assert run.assign_overrides([*data, *training], contents(folder)) == {
        "tokenizer": ["--data.path=b.txt", "--data.seed=1"],
        "prepare": ["--data.path=b.txt", "--data.seed=1"],
        "pretrain": ["--model.hidden_size=16", "--max_steps=3", "--seed=2"],
    }


def test_a_stage_name_that_is_also_a_key(folder):
    """prepare.yaml of a real recipe has a key `tokenizer`; a dotted key of the mapping itself comes first."""
    (folder / "prepare.yaml").write_text("output_dir: runs/x/data\ntokenizer: runs/x/tokenizer\n")
    assigned = run.assign_overrides(["--tokenizer.vocab_size=300", "--tokenizer=there"], contents(folder))
    taken = ["--tokenizer=there"]
    assert assigned == {"tokenizer": ["--vocab_size=300"], "prepare": taken, "pretrain": taken}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--output_dri", "x"], "--output_dri: no recipe has this key; did you mean 'output_dir'?; or put the stage"),
        (["--sft.max_steps=1"], "--sft.max_steps: no recipe has this key"),
        (["--seed"], "'--seed' needs a value"),
        (["seed=1"], "unexpected argument 'seed=1'"),
    ],
)
def test_overrides_that_nobody_takes(folder, arguments, message):
    with pytest.raises(UserError) as error:
        run.assign_overrides(arguments, contents(folder))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_folders_without_recipes(tmp_path, capsys):
    assert main(["run", str(tmp_path / "nowhere")]) == 2
    assert f"error: {tmp_path / 'nowhere'}: no such recipe folder; " in capsys.readouterr().err
    assert main(["run", str(tmp_path)]) == 2
    assert "no recipe in it; recipes are named tokenizer.yaml" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "recipes/quickstart", "--help"])
    assert not stop.value.code
    assert capsys.readouterr().out.startswith("Run the recipes of a folder in order")


@pytest.fixture
def calls(monkeypatch, folder, tmp_path):
    """Every stage is replaced by one that only leaves a folder; `codes` says how it ends."""
    monkeypatch.chdir(tmp_path)
    made, codes = [], {}

    def fake_stage(name, path, overrides):
        assert OWNED in os.environ
        made.append(name)
        if name in codes:
            return codes[name]
        recipe = {**run.read_yaml(path), **split_overrides(overrides)}
        stage = Stage(name, recipe["output_dir"], recipe, {}, [])
        if not stage.is_current():
            stage.begin()
            stage.finish({}, wrote="something")
        return 0

    monkeypatch.setattr(run, "run_stage", fake_stage)
    return made, codes


def test_all_stages_and_the_summary(folder, calls, tmp_path, capsys):
    assert main(["run", str(folder)]) == 0
    assert calls[0] == ["tokenizer", "prepare", "pretrain"] and OWNED not in os.environ
    summary = json.loads((tmp_path / "runs" / "x" / "summary.json").read_text())
    assert list(summary["seconds"]) == calls[0]
    printed = capsys.readouterr().out
    assert "[2/3] prepare" in printed and printed.endswith("wrote runs/x/summary.md, summary.json\n")  # no picture


@pytest.mark.parametrize(
    "mistake, message",
    [("--model=7", "'model' takes a mapping"), ("--pretrain.max_stepz=3", "unknown key 'max_stepz'")],
)
def test_a_mistake_in_a_later_recipe_is_found_before_the_first_stage(folder, calls, capsys, mistake, message):
    assert main(["run", str(folder), mistake]) == 2
    assert calls[0] == []
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder / "pretrain.yaml") in line and message in line


def test_a_failing_stage_stops_the_run(folder, calls, tmp_path):
    calls[1]["prepare"] = 2
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder)])
    assert stop.value.code == 2 and calls[0] == ["tokenizer", "prepare"]
    assert (tmp_path / "runs" / "x" / "tokenizer" / "provenance.json").is_file()
    assert not (tmp_path / "runs" / "x" / "summary.md").exists()


def test_a_killed_stage_is_named(folder, calls, capsys):
    calls[1]["pretrain"] = -signal.SIGKILL
    with pytest.raises(SystemExit) as stop:
        main(["run", str(folder)])
    assert stop.value.code == 137
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: pretrain was killed (SIGKILL, as when memory runs out)")


def test_the_summary_stays_with_the_run_when_one_output_goes_elsewhere(folder, calls, tmp_path):
    assert main(["run", str(folder), "--pretrain.output_dir", str(tmp_path / "big disk" / "pretrain")]) == 0
    assert (tmp_path / "runs" / "x" / "summary.md").is_file()
    assert (tmp_path / "big disk" / "pretrain").is_dir()


@pytest.fixture
def exam(folder, tmp_path, monkeypatch):
    """The folder evaluates too: on a task with local items, one of a data set, and one that prepare writes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm_eval").mkdir()
    for name, data in {
        "exam": "json\ndataset_kwargs: {data_files: {test: exam.jsonl}}",
        "hub": "owner/name",
        "own": "json\ndataset_kwargs: {data_files: {test: runs/x/data/tasks/body_choice.jsonl}}",
    }.items():
        (tmp_path / "lm_eval" / f"{name}.yaml").write_text(f"task: {name}\ntest_split: test\ndataset_path: {data}\n")
    (tmp_path / "exam.jsonl").write_text('{"question": "Which of the two cats came home when it was already late?"}\n')
    (folder / "evaluate.yaml").write_text(
        "output_dir: runs/x/evaluate\ndata: runs/x/data\nmodels: {base: runs/x/pretrain}\n"
        "tasks_dir: lm_eval\ntasks: [exam, hub, own, hellaswag]\n"
    )
    return folder


def told(folder, *arguments):
    recipes = run.recipes_in(folder)
    overrides = run.assign_overrides(list(arguments), contents(folder))
    return run.keep_out_evaluation(recipes, overrides, run.check_recipes(recipes, overrides))


def test_what_the_folder_evaluates_is_kept_out_of_its_text(exam, capsys):
    flag = '--data.decontamination.evaluation=["lm_eval/exam.yaml"]'
    assert told(exam, "--prepare.tasks=5") == {
        "tokenizer": [flag],
        "prepare": ["--tasks=5", flag],
        "pretrain": [],
        "evaluate": [],
    }
    assert "evaluates on lm_eval/exam.yaml: prepare drops training text" in capsys.readouterr().out
    config = parse(PrepareConfig, ["--config", str(exam / "prepare.yaml"), flag], "")
    assert config.data.decontamination.evaluation == ["lm_eval/exam.yaml"]
    both = '--data.decontamination.evaluation=["lm_eval/exam.yaml", "lm_eval/own.yaml"]'
    assert told(exam)["prepare"] == [both]  # that writes no tasks
    capsys.readouterr()
    assert told(exam, "--evaluate.tasks=[hub]")["prepare"] == []
    assert told(exam, "--prepare.data.decontamination.evaluation=[]")["tokenizer"] == []
    (exam / "prepare.yaml").write_text(
        "output_dir: runs/x/data\ntokenizer: runs/x/tokenizer\ndata: {path: a.txt, decontamination: {evaluation: []}}\n"
    )
    assert told(exam) == {stage: [] for stage in run.recipes_in(exam)}
    assert capsys.readouterr().out == ""


def test_quickstart_needs_no_telling(monkeypatch):
    """Its tasks are those that prepare writes, whatever an earlier run has left where they go."""
    monkeypatch.chdir(ROOT)
    recipes = run.recipes_in(ROOT / "recipes" / "quickstart")
    overrides = run.assign_overrides([], {stage: run.read_yaml(path) for stage, path in recipes.items()})
    assert run.keep_out_evaluation(recipes, overrides, run.check_recipes(recipes, overrides)) == overrides


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A folder of recipes of all kinds, each stage with an output that its recipe and inputs would give."""
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "a.txt")
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    trl = "model_name_or_path: runs/x/pretrain\nlearning_rate: 1e-4\nnum_train_epochs: 2\n"
    (tmp_path / "asked.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    records = "datasets: [{path: json, data_files: {train: asked.jsonl}}]\n"
    for stage, text in {
        "tokenizer": "output_dir: runs/x/tokenizer\ndata: {path: a.txt}\n",
        "prepare": "output_dir: runs/x/data\ntokenizer: runs/x/tokenizer\ndata: {path: a.txt}\n",
        "pretrain": "output_dir: runs/x/pretrain\ndata: runs/x/data\ntokenizer: runs/x/tokenizer\n",
        "sft": f"output_dir: runs/x/sft\n{trl}{records}",
        "grpo": f"output_dir: runs/x/grpo\n{trl}{records}reward_funcs: [number]\n",
        "evaluate": "output_dir: runs/x/evaluate\ndata: runs/x/data\nmodels: {base: runs/x/pretrain}\n",
        "export": "output_dir: runs/x/export\nmodel: runs/x/sft\nevaluation: runs/x/evaluate\n",
    }.items():
        (recipes / f"{stage}.yaml").write_text(text)
    for stage, config in run.open_run(recipes, run.RunConfig(), []).configs.items():
        module = run.command_of(stage)
        trl_stage = isinstance(config, dict)
        digests = inputs_of(config) if trl_stage else module.inputs(config)
        output_dir = config["output_dir"] if trl_stage else config.output_dir
        runtime_keys = runtime_keys_of(config) if trl_stage else getattr(module, "RUNTIME_KEYS", frozenset())
        made = Stage(stage, output_dir, config, digests, [], runtime_keys)
        (made.begin() / "written").write_text("something")
        if stage in LANGUAGE_MODELS:
            (made.folder / "config.json").write_text('{"architectures": ["ScratchForCausalLM"]}')
        made.finish({}, wrote="something")
    (tmp_path / "runs" / "x" / "summary.png").touch()
    results = {"conditions": {}, "models": {}}
    (tmp_path / "runs" / "x" / "evaluate" / "results.json").write_text(json.dumps(results))
    return recipes


def test_an_up_to_date_run_starts_no_process_and_loads_nothing(finished, tmp_path):
    harmless = ["--prepare.workers=3", "--pretrain.logging_steps", "7"]
    done = imports_nothing_heavy("run", str(finished), *harmless, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is up to date, skipped") == 7
    assert "[4/7] sft" in done.stdout and "wrote runs/x/summary.md" in done.stdout


@pytest.mark.parametrize(
    "overrides, started",
    [
        ([], set()),
        (["--tokenizer.vocab_size=300"], {"tokenizer"}),
        (["--sft.learning_rate=2e-4"], {"sft"}),
        (["--grpo.use_peft"], {"grpo"}),
        (["--prepare.explain=2"], {"prepare"}),  # has something to print
        (["--pretrain.depth=2"], {"pretrain"}),
    ],
)
def test_only_changed_stages_are_started(finished, overrides, started, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: made.append(stage) or 0)
    assert main(["run", str(finished), *overrides]) == 0
    assert set(made) == started


def test_a_changed_or_missing_input_starts_its_stages(finished, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: made.append(stage) or 0)
    with (tmp_path / "a.txt").open("a") as stream:
        stream.write("more\n")
    with (tmp_path / "asked.jsonl").open("a") as stream:
        stream.write('{"prompt": "c", "completion": "d"}\n')
    shutil.rmtree(tmp_path / "runs" / "x" / "evaluate")
    assert main(["run", str(finished)]) == 0
    assert made == ["tokenizer", "prepare", "sft", "grpo", "evaluate", "export"]


def test_a_missing_file_starts_its_stage(finished, tmp_path, monkeypatch):
    """And those that read it, which would find it made again."""
    made = []
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: made.append((stage, rest)) or 0)
    (tmp_path / "runs" / "x" / "data" / "written").unlink()
    assert main(["run", str(finished), "--restart"]) == 0
    assert made == [(stage, ["--restart"]) for stage in ("prepare", "pretrain", "evaluate")]


def test_text_and_paths_of_the_command_line(finished, tmp_path, monkeypatch):
    """As the stages themselves read them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = ["--prepare.data.path=2024", "--sft.output_dir=~/exp #2", "--pretrain.output_dir=1e3", "--sft.seed=1e0"]
    configs = run.open_run(finished, run.RunConfig(), [*flags[:3], "--evaluate.models={base: ~/x, other: 007}"]).configs
    assert configs["prepare"].data.path == "2024" and configs["pretrain"].output_dir == "1e3"
    assert configs["sft"]["output_dir"] == f"{tmp_path}/exp #2"
    assert configs["evaluate"].models == {"base": f"{tmp_path}/x", "other": "007"}
    with refused("seed"):
        run.open_run(finished, run.RunConfig(), flags)


@pytest.mark.parametrize(
    "flag, facts",
    [
        ("--sft.learning_rte=1", ["sft.yaml", "unknown key 'learning_rte'", "learning_rate"]),
        ("--grpo.max_steps=many", ["grpo.yaml", "'max_steps'", "many"]),
    ],
)
def test_recipes_for_trl_are_checked_before_the_first_stage(finished, flag, facts, monkeypatch, capsys):
    monkeypatch.setattr(trl_options, "installed_versions", lambda: trl_options._table()["versions"])
    assert main(["run", str(finished), flag]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(fact in line for fact in facts)


@pytest.mark.parametrize("key", ["output_dir", "model_name_or_path", "datasets"])
@pytest.mark.parametrize("value", ["null", None])
def test_required_keys_of_trl_recipes_are_checked_before_the_first_stage(finished, key, value, monkeypatch, capsys):
    monkeypatch.setattr(trl_options, "installed_versions", lambda: trl_options._table()["versions"])
    sft = finished / "sft.yaml"
    lines = [line for line in sft.read_text().splitlines() if not line.startswith(key)]
    sft.write_text("\n".join([*lines, *[f"{key}: {value}"] * bool(value)]))
    assert main(["run", str(finished), "--minutes=5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(fact in line for fact in ("sft.yaml", f"'{key}'", "missing"))


def test_a_key_that_only_a_newer_trl_knows_is_left_to_it(finished, monkeypatch):
    made = []
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: made.append(stage) or 0)
    monkeypatch.setattr(trl_options, "installed_versions", lambda: {"trl": "99", "transformers": "99"})
    assert main(["run", str(finished), "--sft.brand_new=1"]) == 0 and made == ["sft"]


def test_stages_in_processes_of_their_own(tmp_path, monkeypatch, capfd):
    """Two real stages; the second run skips both, a third one fails in the second stage and keeps the first."""
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "a.txt")
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    data = "data: {path: a.txt, validation_fraction: 0.2}\n"
    (recipes / "tokenizer.yaml").write_text(f"output_dir: runs/x/tokenizer\nvocab_size: 280\n{data}")
    (recipes / "prepare.yaml").write_text(f"output_dir: runs/x/data\ntokenizer: runs/x/tokenizer\n{data}")
    assert main(["run", str(recipes)]) == 0
    assert (tmp_path / "runs" / "x" / "data" / "manifest.json").is_file()
    assert f"next: scratch prepare --config {recipes / 'prepare.yaml'}" in capfd.readouterr().out

    config = build(PrepareConfig, read_yaml(tmp_path / "runs" / "x" / "data" / "recipe.yaml"), "recipe.yaml")
    assert config == run.open_run(recipes, run.RunConfig(), []).configs["prepare"]
    done = imports_nothing_heavy("run", str(recipes), cwd=tmp_path)
    assert done.stdout.count("is up to date, skipped") == 2

    before = (tmp_path / "runs" / "x" / "data" / "provenance.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["run", str(recipes), "--prepare.data.path", "b.txt"])
    assert stop.value.code == 2
    captured = capfd.readouterr()
    assert "tokenizer: runs/x/tokenizer is up to date, skipped" in captured.out
    assert captured.err == "error: 'data.path': no such file or folder: b.txt (a Hub dataset is written owner/name)\n"
    assert (tmp_path / "runs" / "x" / "data" / "provenance.json").read_bytes() == before


def test_minutes_beyond_all_bounds_are_one_line(finished, capsys):
    assert main(["run", str(finished), "--minutes=1e+308"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'minutes' must be" in line


MACHINE = Machine("processor", 2, 2, 0.0, 8 * 2**30, bf16=True, gpu=None, rate=425e9)


@pytest.fixture
def measured(folder, tmp_path, monkeypatch):
    """How often the machine was measured, for recipes that leave their output below `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(run, "measure_once", lambda: calls.append(1) or MACHINE)
    return calls


def steps_of(folder: Path, *arguments: str) -> list[str]:
    own, keys = run.split_arguments(list(arguments))
    config = run.read_config(folder, read_flags(run.RunOptions, own))
    recipes = run.recipes_in(folder)
    overrides = run.assign_overrides(keys, contents(folder))
    return run.fit_to_minutes(config.minutes, recipes, overrides)["pretrain"]


def test_steps_are_fitted_once(folder, measured, monkeypatch):
    """The record keeps them, whatever the machine does later; other minutes, or other steps, are fitted anew."""
    assert steps_of(folder) == [] and not measured
    first = steps_of(folder, "--minutes", "5")
    assert first[0].startswith("--max_steps=") and first[0] != "--max_steps=1000" and len(measured) == 1
    record = json.loads(Path("runs/x/run.json").read_text())
    assert record["minutes"] == 5 and record["recipe_steps"] == {"pretrain": 1000}
    monkeypatch.setattr(MACHINE, "rate", 2 * MACHINE.rate)
    assert steps_of(folder, "--minutes=5") == first and len(measured) == 1
    assert steps_of(folder, "--minutes=6") != first and len(measured) == 2


def test_steps_on_the_command_line_win(folder, measured):
    (folder / "run.yaml").write_text("minutes: 5\n")
    assert steps_of(folder, "--pretrain.max_steps=7") == ["--max_steps=7"]
    assert steps_of(folder, "--minutes", "null") == []
    assert not measured and not Path("runs/x/run.json").exists()
    assert steps_of(folder, "--seed=1")[0] == "--seed=1" and measured


def test_minutes_must_be_more_than_none(folder, capsys):
    assert main(["run", str(folder), "--minutes=0"]) == 2
    assert "'minutes' must be above 0" in capsys.readouterr().err
    (folder / "run.yaml").write_text("minutes: 0\n")
    with refused("minutes", "above 0", "run.yaml"):
        run.read_config(folder, {})


def test_the_machine_is_described_before_the_first_stage_that_runs(finished, monkeypatch, capsys):
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: 0)
    monkeypatch.setattr(run, "measure_once", lambda: MACHINE)
    assert main(["run", str(finished), "--prepare.explain=2", "--evaluate.batch_size=3"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("[", "processor: "))]
    assert headings[:3] == [
        f"[1/7] tokenizer ({finished / 'tokenizer.yaml'})",
        MACHINE.describe(),
        f"[2/7] prepare ({finished / 'prepare.yaml'})",
    ] and headings.count(MACHINE.describe()) == 1


def test_options_of_the_run_and_keys_of_its_stages():
    split = run.split_arguments(["x", "--minutes", "3", "--data.path", "a b", "--restart", "--copy-to=c", "--seed=1"])
    assert split == (["x", "--minutes", "3", "--restart", "--copy-to=c"], ["--data.path", "a b", "--seed=1"])
    assert run.split_arguments(["--data.path", "a", "x"])[0] == []


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder, where the recipes are those that the package brings."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes_are_listed(elsewhere, capsys):
    (elsewhere / "recipes" / "mine").mkdir(parents=True)
    (elsewhere / "recipes" / "mine" / "sft.yaml").touch()
    assert main(["run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert {"  arithmetic   tokenizer, prepare, pretrain, sft, grpo, evaluate", "  mine         sft"} <= set(printed)
    shipped = {path.parent.name for path in (ROOT / "recipes").glob("*/*.yaml")} - {"accelerate", "lm_eval"}
    assert {line.split()[0] for line in printed[1:] if line.startswith("  ")} == shipped | {"mine"}
    assert main(["run", "quikstart"]) == 2 and "did you mean 'quickstart'?" in capsys.readouterr().err
    assert main(["run", "--data.path", "a.txt", "quickstart"]) == 2
    assert "the recipe folder comes first" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["arithmetic", "recipes/arithmetic"])
def test_a_recipe_by_its_name(elsewhere, name, monkeypatch):
    made = []
    monkeypatch.setattr(run, "run_stage", lambda stage, path, rest: made.append(str(path)) or 1)
    monkeypatch.setattr(run, "measure_once", lambda: MACHINE)
    with pytest.raises(SystemExit):
        main(["run", name])
    assert made == ["recipes/arithmetic/tokenizer.yaml"]
    assert not (elsewhere / "recipes").exists()


def test_a_folder_without_recipes_does_not_hide_a_shipped_recipe(elsewhere):
    (elsewhere / "quickstart").mkdir()
    assert run.find_folder("quickstart") == Path("recipes/quickstart")
    (elsewhere / "recipes" / "quickstart").mkdir(parents=True)
    (elsewhere / "recipes" / "quickstart" / "sft.yaml").touch()
    assert list(run.recipes_in(run.find_folder("quickstart"))) == ["sft"]
    (elsewhere / "quickstart" / "dpo.yaml").touch()
    assert list(run.recipes_in(run.find_folder("quickstart"))) == ["dpo"]
    (elsewhere / "other").mkdir()
    assert run.find_folder("other") == Path("other")


@pytest.mark.parametrize("option", ["--minutes=5", "--restart", "--pretrain.max_steps=3"])
def test_a_copy_takes_no_other_options(elsewhere, option, capsys):
    assert main(["run", "arithmetic", "--copy_to", "mine", option]) == 2
    assert "'copy_to'" in (line := capsys.readouterr().err) and option.partition("=")[0] in line
    assert not list(elsewhere.iterdir())


def test_what_a_shipped_recipe_names_is_found(elsewhere):
    """Its task files and its chat template; a folder of the same name here comes first."""
    assert {"scratch_body_choice", "scratch_docstring_choice"} == local_tasks(Path("recipes/lm_eval")).keys()
    (elsewhere / "runs/arithmetic/sums").mkdir(parents=True)
    (elsewhere / "runs/arithmetic/sums/sft.jsonl").write_text('{"prompt": "1 + 1 =", "completion": " 2"}\n')
    values = trl_options.check_values("sft", read_yaml("recipes/arithmetic/sft.yaml"), "recipe")
    Stage("pretrain", "runs/arithmetic/pretrain", {}, {}, []).begin().rename("runs/arithmetic/pretrain")
    assert values["chat_template_path"] in inputs_of(values | {"model_name_or_path": "owner/name"})
    (elsewhere / "recipes" / "lm_eval").mkdir(parents=True)
    assert local_tasks(Path("recipes/lm_eval")) == {}


def test_a_copy_has_its_own_outputs(elsewhere, capsys):
    assert main(["run", "arithmetic", "--copy_to", "my/sums"]) == 0
    assert "scratch run my/sums" in capsys.readouterr().out
    sft = read_yaml("my/sums/sft.yaml")
    assert sft["chat_template_path"] == "my/sums/chat_template.jinja" and sft["output_dir"] == "runs/sums/sft"
    text = "".join(file.read_text() for file in Path("my/sums").iterdir())
    assert "runs/arithmetic" not in text and "recipes/arithmetic" not in text
    assert list(run.recipes_in(run.find_folder("my/sums"))) == list(run.recipes_in(run.find_folder("arithmetic")))
    for wrong, fact in (("my/sums", "exists"), ("my # sums", "plain")):
        assert main(["run", "arithmetic", "--copy_to", wrong]) == 2
        assert fact in capsys.readouterr().err and not Path("my # sums").exists()
    assert main(["run", "recipes", "--copy_to", "recipes"]) == 0
    original = {path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    copied = {path for path in Path("recipes").rglob("*") if path.is_file()}
    assert copied == {path for path in original if "__pycache__" not in path.parts}
    assert all(path.read_bytes() == (ROOT / path).read_bytes() for path in copied)
