"""Run the recipes of a folder in order.

    scratch run                                 lists the recipes
    scratch run quickstart [--key value ...]    runs recipes/quickstart
    scratch run quickstart --copy_to mine       copies it; edit the copy, then: scratch run mine

Every `STAGE.yaml` in the folder is a stage. Stages whose recipe and inputs are unchanged are skipped; an interrupted
one resumes where it stopped. Accelerate starts a stage that has a launch file, `accelerate/STAGE.yaml` in the folder.
An override applies to every recipe that has the key (`--data.path my.txt`), or to one stage if its name comes first
(`--pretrain.max_steps 200`). Items of the local lm-eval tasks in evaluate.yaml are kept out of the training text. At
the end, a table and a plot of the whole run are written.

Recipes come with the package: a folder of `recipes` that does not exist here is taken from there, also where a command
or a recipe names a file in it. `scratch run recipes --copy_to recipes` copies all, and the files for accelerate launch.

`--minutes 20`, or `minutes` in the folder's run.yaml, scales the steps of pretrain, sft and dpo so that the whole run
takes about that long on this machine. The steps are chosen once and kept in RUN_FOLDER/run.json. They stay as in the
recipes with `--minutes null`, or if the command line sets `max_steps`.

A finished output is replaced when its recipe or inputs have changed, or when a file of it is missing; what is replaced
and why is printed. An edited output, or an interrupted stage of another recipe, is discarded only with `--restart`.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from training.common.errors import UserError
from training.common.files import write_whole
from training.common.json_files import read_json
from training.common.processes import run_child
from training.common.shipped import with_shipped
from training.machine.resources import Machine, measure
from training.machine.stage_times import SCALED, Folder, describe_times, fit_steps
from training.stages.flags import apply_overrides, find_field, read_arguments, split_overrides, takes_no_value
from training.stages.help import command_line
from training.stages.launcher import launcher_of
from training.stages.lock import at_work
from training.stages.provenance import has_recipe
from training.stages.recipe import PathText, build, local_path, nearest, option, positional
from training.stages.recipe_folders import copy_recipes, describe_recipes, find_folder, recipes_in
from training.stages.stage import OWNED, Stage
from training.stages.yaml_values import read_yaml
from training.tuning.keys import trl_options
from training.tuning.pipeline.recipe import inputs_of, runtime_keys_of

EVALUATION = "data.decontamination.evaluation"
RUN, RECORD = "run.yaml", "run.json"
_FITTED = {"minutes": (int, float), "recipe_steps": {str: object}, "max_steps": {str: int}}


@dataclass
class RunConfig:
    """The keys of a folder's run.yaml."""

    minutes: float | None = option(
        None, "minutes that the steps of pretrain, sft and dpo are fitted to", above=0, below=10**7
    )


@dataclass
class RunOptions(RunConfig):
    """Options of `scratch run` itself; all others are keys of its stages."""

    folder: PathText | None = positional("recipe folder, or the name of one in recipes", None)
    copy_to: PathText | None = option(None, "folder to make a copy of the recipe in; nothing is run")
    restart: bool = option(False, "discard interrupted stages of another recipe, and edited outputs")


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words of `scratch run` itself, the folder first, and those of its stages."""
    own_flags = {"help", *(field.name for field in dataclasses.fields(RunOptions))}
    words: tuple[list[str], list[str]] = [], []
    place = 0
    for word in arguments:
        if word.startswith("--"):
            place = int(word[2:].partition("=")[0].replace("-", "_") not in own_flags)
        words[place].append(word)
    return words


def command_of(stage: str) -> ModuleType:
    """The module of a stage.

    Our own stages have `CONFIG`, the dataclass of the recipe, and `inputs(config)`, the digests of what they read,
    or None if only the stage can tell. They may have `RUNTIME_KEYS`, see `training.stages.stage.Stage`, and
    `PRINTING_KEYS`, with which they print something even if their output is up to date.
    """
    return importlib.import_module(f"training.commands.{stage}")


def is_boolean(dotted: str, recipes: dict[str, Any]) -> bool:
    """Whether some stage has this key, perhaps after the stage's name, as a truth value."""
    stage, _, rest = dotted.partition(".")
    keys = {name: dotted for name in recipes} | ({stage: rest} if stage in recipes and rest else {})
    return any(takes_no_value(hint_of(name, key)) for name, key in keys.items())


def hint_of(stage: str, dotted: str) -> Any:
    """The annotation of a stage's key; None for an unknown key."""
    if stage in trl_options.CONFIGURATIONS:
        return trl_options.hint_of(stage, dotted)
    return find_field(command_of(stage).CONFIG, dotted)[1]


def assign_overrides(overrides: list[str], recipes: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The `--key=value` flags of each stage.

    Raises:
        UserError: a key that no recipe has.
    """
    assigned: dict[str, list[str]] = {stage: [] for stage in recipes}
    for key, value in split_overrides(overrides, lambda key: is_boolean(key, recipes)).items():
        stage, _, rest = key.partition(".")
        if rest and stage in recipes and not _has(recipes, key):
            assigned[stage].append(f"--{rest}={value}")
            continue
        takers = [name for name, recipe in recipes.items() if _has({name: recipe}, key)]
        if not takers:
            known = {name for recipe in recipes.values() for name in recipe}
            hint = f"{nearest(key, known)}; or put the stage first, as in --pretrain.{key}"
            raise UserError(f"--{key}: no recipe has this key; {hint}")
        for name in takers:
            assigned[name].append(f"--{key}={value}")
    return assigned


def _has(recipes: dict[str, dict[str, Any]], dotted: str) -> bool:
    for recipe in recipes.values():
        value: Any = recipe
        for part in dotted.split("."):
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            return True
    return False


def resolve(recipes: dict[str, Path], overrides: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """The content of each recipe with its overrides."""
    return {
        stage: apply_overrides(read_yaml(path), split_overrides(overrides[stage]), functools.partial(hint_of, stage))
        for stage, path in recipes.items()
    }


def check_recipes(recipes: dict[str, Path], overrides: dict[str, list[str]]) -> dict[str, Any]:
    """Build all recipes before the first stage runs, so that a misspelt key in the last one is found now.

    Returns:
        The configuration of each stage; of TRL's trainers a mapping.
    """
    configs = {}
    for stage, values in resolve(recipes, overrides).items():
        where = str(recipes[stage])
        if stage in trl_options.CONFIGURATIONS:
            configs[stage] = trl_options.check_recipe(stage, values, where)
        else:
            configs[stage] = build(command_of(stage).CONFIG, values, where)
    return configs


def keep_out_evaluation(
    recipes: dict[str, Path], overrides: dict[str, list[str]], configs: dict[str, Any]
) -> dict[str, list[str]]:
    """Overrides that keep the items of the lm-eval tasks in evaluate.yaml out of the training text.

    Only tasks whose items are local files are added, and only where neither a recipe nor the command line has
    `data.decontamination.evaluation`. The tokenizer gets the same override: it learns from the same training text.
    """
    readers = {stage: recipes[stage] for stage in ("tokenizer", "prepare") if stage in recipes}
    if "prepare" not in readers or "evaluate" not in recipes or _has(resolve(readers, overrides), EVALUATION):
        return overrides

    from training.corpus.dedup.evaluation_items import task_files
    from training.corpus.examples.tasks import TASKS
    from training.eval.harness.task_files import local_tasks

    evaluate = configs["evaluate"]
    # Tasks that prepare itself writes do not exist yet; it keeps their items out itself.
    own = {f"{name}.jsonl" for name in TASKS if configs["prepare"].tasks}
    local = local_tasks(Path(evaluate.tasks_dir)) if evaluate.tasks else {}
    tasks = [local[name] for name in evaluate.tasks if name in local]
    kept_out = [str(path) for path in tasks if {file.name for file in task_files(path)} - own]
    if not kept_out:
        return overrides
    print(
        f"{recipes['evaluate']} evaluates on {', '.join(kept_out)}: prepare drops training text that contains one of "
        f"the items (set '{EVALUATION}' in prepare.yaml to change that)"
    )
    flag = f"--{EVALUATION}={json.dumps(kept_out)}"
    return overrides | {stage: [*overrides[stage], flag] for stage in readers}


def read_config(folder: Path, given: dict[str, Any]) -> RunConfig:
    """The keys of run.yaml, with those of the command line in their place.

    Args:
        given: values of the command line by key; other keys are ignored.
    """
    file = folder / RUN
    values = read_yaml(file) if with_shipped(file).is_file() else {}
    config = build(RunConfig, values, str(file))
    return dataclasses.replace(config, **{key: given[key] for key in vars(config) if key in given})


def fit_to_minutes(
    minutes: float | None, recipes: dict[str, Path], overrides: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Overrides with the steps that fit into so many minutes, from the record of the run or by a measurement.

    The record holds for the same minutes and the same steps in the recipes.
    """
    values = resolve(recipes, overrides)
    given = any("max_steps" in split_overrides(flags) for flags in overrides.values())
    if minutes is None or given:
        return overrides
    folder, file = Folder(values), common_folder(values) / RECORD
    asked = {"minutes": minutes, "recipe_steps": {name: folder.steps(name) for name in SCALED if name in recipes}}
    try:
        record = read_json(file, _FITTED) if file.is_file() else {}
    except ValueError:
        raise UserError(f"{file} is damaged; delete it, and the steps are fitted again") from None
    if {key: record.get(key) for key in asked} != asked:
        machine = measure_once()
        record = asked | {"machine": dataclasses.asdict(machine), "max_steps": fit_steps(folder, machine, minutes)}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(record, indent=2) + "\n")
    if record["max_steps"]:
        steps = ", ".join(f"{name} {count} steps" for name, count in record["max_steps"].items())
        print(f"run: fitted to {minutes:g} minutes: {steps} ({file})")
    return {name: [*flags, *_steps_flag(record["max_steps"], name)] for name, flags in overrides.items()}


def _steps_flag(steps: dict[str, int], stage: str) -> list[str]:
    return [f"--max_steps={steps[stage]}"] if stage in steps else []


@functools.cache
def measure_once() -> Machine:
    """The machine as it was at the first call."""
    return measure()


def is_current(stage: str, config: Any) -> bool:
    """Whether the output of a stage is up to date; prints a line if it is.

    It asks what the stage itself asks at its start, without starting it. False where only the stage can tell.
    """
    module = command_of(stage)
    of_trl = stage in trl_options.CONFIGURATIONS
    runtime_keys = runtime_keys_of(config) if of_trl else getattr(module, "RUNTIME_KEYS", frozenset())
    output_dir = config.get("output_dir", "") if of_trl else config.output_dir
    if any(getattr(config, key) for key in getattr(module, "PRINTING_KEYS", ())):
        return False
    try:
        if not has_recipe(output_dir, config, runtime_keys):  # before any input is read, which may take long
            return False
        inputs = inputs_of(config) if of_trl else module.inputs(config)
        return inputs is not None and Stage(stage, output_dir, config, inputs, [], runtime_keys).is_current()
    except UserError:  # the stage reports it
        return False


def run_stage(stage: str, path: Path, overrides: list[str]) -> int:
    """Run a stage in a process, so that its memory is freed and no distributed state reaches the next one.

    Returns:
        The exit code, negative for a signal.
    """
    command = ["-m", "training", stage, "--config", str(path), *overrides]
    return run_child([sys.executable, *launcher_of(stage, path), *command])


def check_exit_code(stage: str, code: int, restart: bool = False) -> None:
    """Raise SystemExit if the stage failed. If it was killed, print that, because the stage could not.

    Args:
        restart: whether the same command would start over.
    """
    if code < 0:
        killer = signal.Signals(-code).name
        hint = ", as when memory runs out" if killer == "SIGKILL" else ""
        again = "the same command without --restart" if restart else "the same command"
        print(f"error: {stage} was killed ({killer}{hint}); run {again} to resume", file=sys.stderr)
        raise SystemExit(128 - code)
    if code:
        raise SystemExit(code)


@dataclass
class Run:
    """The stages of a folder, ready to run."""

    recipes: dict[str, Path]
    overrides: dict[str, list[str]]
    configs: dict[str, Any]


def open_run(folder: Path, config: RunConfig, arguments: list[str]) -> Run:
    """Read and check all recipes of a folder.

    Args:
        arguments: keys of the stages, `--key value`.

    Raises:
        UserError: a mistake in a recipe or an override.
    """
    recipes = recipes_in(folder)
    overrides = assign_overrides(arguments, {stage: read_yaml(path) for stage, path in recipes.items()})
    configs = check_recipes(recipes, overrides)
    changed = fit_to_minutes(config.minutes, recipes, keep_out_evaluation(recipes, overrides, configs))
    return Run(recipes, changed, configs if changed == overrides else check_recipes(recipes, changed))


@contextlib.contextmanager
def owning_outputs() -> Iterator[None]:
    """Tell the stages that start here that they may replace a finished output of another recipe."""
    os.environ[OWNED] = "1"
    try:
        yield
    finally:
        del os.environ[OWNED]


def run_stages(run: Run, restart: bool) -> bool:
    """Run each stage whose output is not up to date; returns whether there was one.

    Args:
        restart: discard what interrupted runs have left.

    Raises:
        SystemExit: a stage failed.
    """
    ran = False
    for number, (stage, path) in enumerate(run.recipes.items(), start=1):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            current = is_current(stage, run.configs[stage])
        if not current and not ran:
            print(f"\n{describe_times(Folder(resolve(run.recipes, run.overrides)), measure_once())}")
        print(f"\n[{number}/{len(run.recipes)}] {stage} ({path})\n{said.getvalue()}", end="", flush=True)
        if not current:
            code = run_stage(stage, path, [*run.overrides[stage], *["--restart"] * restart])
            check_exit_code(stage, code, restart)
            ran = True
    return ran


def main(arguments: list[str]) -> None:
    """Run the stages of a folder, or list or copy the recipes.

    1. Read the options; find the folder. List the recipes if none is named; copy the folder if that is asked for.
    2. Read and check all recipes, with their overrides. Fit the training steps to the minutes asked for.
    3. Run each stage in a process, unless its output is up to date. Stop at the first that fails. Before the first one,
       print what the machine has and how long the stages will take.
    4. Write the summary of the run.

    Raises:
        UserError: a mistake in a recipe or an override.
        SystemExit: a stage failed; its exit code, or 128 + n if signal n killed it.
    """
    own, keys = split_arguments(arguments)
    given, where = read_arguments(RunOptions, own, __doc__, recipe=False)
    options = build(RunOptions, given, where)
    if not options.folder:
        if arguments:
            raise UserError("the recipe folder comes first, as in: scratch run recipes/quickstart --key value")
        print(describe_recipes())
        return
    folder = find_folder(options.folder)
    if options.copy_to:
        others = [*keys, *(f"--{key}" for key in given.keys() - {"folder", "copy_to"})]
        if others:
            raise UserError(f"'copy_to': nothing is run; leave out {' '.join(others)}, or edit the copy")
        copy_recipes(folder, Path(options.copy_to))
        print(f"run: copied {folder}; next: edit its files, then {command_line('run', options.copy_to)}")
        return
    run = open_run(folder, read_config(folder, given), keys)
    started, run_dir = time.monotonic(), common_folder(resolve(run.recipes, run.overrides))
    with owning_outputs(), at_work(run_dir):
        ran = run_stages(run, options.restart)

    from training.eval.results.summary import write_summary

    summary = write_summary(run_dir, picture=ran)
    print(f"\n{summary.text}")
    minutes = (time.monotonic() - started) / 60
    print(f"\nrun: {minutes:.1f} minutes; wrote {run_dir}/{', '.join(summary.files)}")


def common_folder(recipes: dict[str, dict[str, Any]]) -> Path:
    """The folder in which most stages have their output, where the summary of the run goes."""
    parents = [Path(local_path(recipe["output_dir"])).parent for recipe in recipes.values()]
    return Counter(parents).most_common(1)[0][0]
