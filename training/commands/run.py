"""Run the recipes of a folder in order: scratch run recipes/quickstart [--key value ...]

Every `STAGE.yaml` in the folder is one stage; stages whose recipe and inputs are unchanged are skipped, an interrupted
one goes on where it stopped. An override goes to every recipe that has the key (`--data.path my.txt`), or to one stage
by its name (`--pretrain.max_steps 200`). Items of evaluate.yaml's local lm-eval tasks are kept out of the training
text. Ends with a table and a picture of the whole run.
"""

import importlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from training.common.errors import UserError
from training.common.recipe import STAGES, apply_overrides, build, nearest, read_yaml, split_overrides

EVALUATION = "data.decontamination.evaluation"


def recipes_in(folder: Path) -> dict[str, Path]:
    """The stages of a folder in the order of running."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such recipe folder")
    found = {stage: folder / f"{stage}.yaml" for stage in STAGES if (folder / f"{stage}.yaml").is_file()}
    if not found:
        names = ", ".join(f"{stage}.yaml" for stage in STAGES)
        raise UserError(f"{folder}: no recipe in it; recipes are named {names}")
    return found


def assign_overrides(overrides: list[str], recipes: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Which stage gets which `--key value`.

    Raises:
        UserError: a key that no recipe has.
    """
    assigned: dict[str, list[str]] = {stage: [] for stage in recipes}
    for key, value in split_overrides(overrides).items():
        stage, _, rest = key.partition(".")
        if rest and stage in recipes and not _has(recipes, key):
            assigned[stage].append(f"--{rest}={value}")
            continue
        takers = [name for name, recipe in recipes.items() if _has({name: recipe}, key)]
        if not takers:
            known = {name for recipe in recipes.values() for name in recipe}
            hint = f"{nearest(key, known)}; or name the stage, as in --pretrain.{key}"
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


def check_recipes(recipes: dict[str, Path], overrides: dict[str, list[str]]) -> dict[str, Any]:
    """Parse our own recipes before the first stage runs, so that the last one's misspelt key is found now.

    TRL's are left to their stages, since TRL alone knows its keys and takes long to load.

    Returns:
        The configurations of our own stages.
    """
    configs = {}
    for stage, path in recipes.items():
        config = getattr(importlib.import_module(f"training.commands.{stage}"), f"{stage.capitalize()}Config", None)
        if config:
            values = apply_overrides(read_yaml(path), split_overrides(overrides[stage]))
            configs[stage] = build(config, values, where=str(path))
    return configs


def keep_out_evaluation(
    recipes: dict[str, Path], overrides: dict[str, list[str]], configs: dict[str, Any]
) -> dict[str, list[str]]:
    """Overrides with which the text is checked against the lm-eval tasks that the folder ends with, where their items
    are local files; what `data.decontamination.evaluation` says in a recipe or on the command line stays.

    The tokenizer is told too: it learns from the training text of the same split.
    """
    readers = [stage for stage in ("tokenizer", "prepare") if stage in recipes]
    resolved = {
        stage: apply_overrides(read_yaml(recipes[stage]), split_overrides(overrides[stage])) for stage in readers
    }
    if "prepare" not in readers or "evaluate" not in recipes or _has(resolved, EVALUATION):
        return overrides

    from training.corpus.dedup.evaluation_items import task_files
    from training.corpus.examples.tasks import TASKS
    from training.eval.harness.task_files import local_tasks

    evaluate = configs["evaluate"]
    # Those that prepare itself writes are not there yet; it keeps them out of its text itself.
    own = {f"{name}.jsonl" for name in TASKS if configs["prepare"].tasks}
    local = local_tasks(Path(evaluate.tasks_dir)) if evaluate.tasks else {}
    asked = [local[name] for name in evaluate.tasks if name in local]
    kept_out = [str(path) for path in asked if {file.name for file in task_files(path)} - own]
    if not kept_out:
        return overrides
    print(
        f"{recipes['evaluate']} asks {', '.join(kept_out)}: prepare drops training text that holds one of the items "
        f"(unless prepare.yaml says otherwise in '{EVALUATION}')"
    )
    told = f"--{EVALUATION}={json.dumps(kept_out)}"
    return overrides | {stage: [*overrides[stage], told] for stage in readers}


def run_stage(stage: str, path: Path, overrides: list[str]) -> int:
    """One stage in a process of its own: its memory comes back, and distributed state cannot leak into the next."""
    command = [sys.executable, "-m", "training", stage, "--config", str(path), *overrides]
    # Its own process group, so that Ctrl-C reaches it once, through us, and it can save before it stops.
    child = subprocess.Popen(command, process_group=0)

    def forward(signum: int, _: FrameType | None) -> None:
        child.send_signal(signum)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: list[str]) -> None:
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(__doc__.strip())
        return
    recipes = recipes_in(Path(arguments[0]))
    contents = {stage: read_yaml(path) for stage, path in recipes.items()}
    overrides = assign_overrides(arguments[1:], contents)
    overrides = keep_out_evaluation(recipes, overrides, check_recipes(recipes, overrides))
    started = time.monotonic()
    for number, (stage, path) in enumerate(recipes.items(), start=1):
        print(f"\n[{number}/{len(recipes)}] {stage} ({path})", flush=True)
        code = run_stage(stage, path, overrides[stage])
        if code < 0:  # it could not say anything itself
            killer = signal.Signals(-code).name
            hint = ", as when memory runs out" if killer == "SIGKILL" else ""
            print(f"error: {stage} was killed ({killer}{hint}); the same command goes on from there", file=sys.stderr)
            raise SystemExit(128 - code)
        if code:
            raise SystemExit(code)

    from training.eval.results.summary import write_summary

    run_dir = common_folder(contents, overrides)
    print(f"\n{write_summary(run_dir)}")
    minutes = (time.monotonic() - started) / 60
    print(f"\nrun: {minutes:.1f} minutes; wrote {run_dir}/summary.md, summary.json and summary.png")


def common_folder(recipes: dict[str, dict[str, Any]], overrides: dict[str, list[str]]) -> Path:
    """The folder in which most stages leave their output: the run's own, where its summary goes."""
    outputs = [{**recipe, **split_overrides(overrides[stage])}["output_dir"] for stage, recipe in recipes.items()]
    return Counter(Path(output).parent for output in outputs).most_common(1)[0][0]
