"""Recipe folders written from a plan: a YAML file per stage, launch files, the predictions, and a README with them.

The recipes 10m, 124m, 1b, 7b and 70b are what this module writes for the plans in `shipped.py`.
"""

import json
from pathlib import Path

from training.common.errors import UserError
from training.planner.plan import Plan
from training.planner.recipes.launch_files import launch_files
from training.planner.recipes.lines import line
from training.planner.recipes.mixtures import suites
from training.planner.recipes.predictions import PLAN, predictions
from training.planner.recipes.pretraining import pretrain
from training.planner.recipes.readme import readme
from training.planner.recipes.text import data_lines, downloads, needs_download
from training.planner.recipes.tuning import dpo, sft
from training.planner.units import as_count, as_decimal_bytes


def write_recipe(plan: Plan, folder: Path) -> list[str]:
    """Write the recipe folder of a plan; return the names of its files.

    Raises:
        UserError: the folder exists, the plan does not fit, the architecture is not one of ours, or Accelerate has no
            such layout.
    """
    if not plan.fits:
        raise UserError(f"'output_dir': the plan does not fit into memory; first {plan.remedy}")
    if folder.exists():
        raise UserError(f"'output_dir': {folder} exists; name a new folder")
    files = recipe_files(plan, folder)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return list(files)


def recipe_files(plan: Plan, folder: Path) -> dict[str, str]:
    """The text of each file of a recipe folder, by its name in the folder. Raises what `write_recipe` raises."""
    stages = {
        "tokenizer": _tokenizer,
        "prepare": _prepare,
        "pretrain": pretrain,
        "sft": sft,
        "dpo": dpo,
        "evaluate": _evaluate,
        "export": _export,
    }
    launches, files = launch_files(plan), {}
    for number, (stage, write) in enumerate(stages.items(), start=1):
        result, *lines = write(plan, f"runs/{folder.name}")
        command = f"{stage} --config {folder.as_posix()}/{stage}.yaml"
        head = [f"# Stage {number} of {len(stages)}: {result}.   scratch {command}"]
        if stage in launches:
            launcher = f"accelerate launch --config_file {folder.as_posix()}/accelerate/{stage}.yaml"
            head = [f"# Stage {number} of {len(stages)}: {result}.", f"#   {launcher} -m training {command}"]
        files[f"{stage}.yaml"] = "\n".join([*head, *lines]) + "\n"
    files |= {f"accelerate/{stage}.yaml": text for stage, text in launches.items()}
    files[PLAN] = json.dumps(predictions(plan), indent=2) + "\n"
    files["README.md"] = readme(plan, folder)
    return files


def _tokenizer(plan: Plan, runs: str) -> list[str]:
    size = plan.architecture.vocab_size
    small = size < 10_000
    reason = "larger: shorter sequences and a larger embedding" if small else "a multiple of 128 suits matrix units"
    return [
        f"a vocabulary of {size:,}",
        *downloads(plan),
        f"output_dir: {runs}/tokenizer",
        "",
        *data_lines(plan, "keep it the same as in prepare.yaml, so that validation text stays unseen"),
        "",
        "kind: bpe",
        line(f"vocab_size: {size}", reason),
        line(f"max_bytes: {10_000_000 if small else 100_000_000:_}", "training text to learn from"),
    ]


def _prepare(plan: Plan, runs: str) -> list[str]:
    token = 2 if plan.architecture.vocab_size <= 2**16 else 4  # bytes
    disk = plan.text_bytes.high * 1.05 + 2 * token * plan.shape.tokens
    remarks = [f"# The stage needs about {as_decimal_bytes(disk)} of disk while it runs, for text and tokens."]
    if needs_download(plan):
        remarks += [
            "# On a cluster, many machines read the files if you add, for example:",
            "#   engine: {kind: slurm, partition: cpu, tasks: 256, memory_gb: 4}   (docs/data_at_scale.md)",
        ]
    return [
        f"{as_count(plan.shape.tokens)} tokens and a margin",
        *remarks,
        f"output_dir: {runs}/data",
        f"tokenizer: {runs}/tokenizer",
        "",
        *data_lines(plan, "keep it the same as in tokenizer.yaml"),
    ]


def _evaluate(plan: Plan, runs: str) -> list[str]:
    size = plan.architecture.num_parameters
    remarks = ["# Code that the model writes is run in a sandbox, for humaneval only."] * ("humaneval" in suites(size))
    if 4 * size > 0.9 * plan.layout.device.memory:
        remarks += [
            f"# The stage loads a model onto one device. For {as_decimal_bytes(4 * size)} of fp32 weights, run it on a",
            "# host with that memory, and CUDA_VISIBLE_DEVICES set to nothing.",
        ]
    return [
        "scores of every model on held-out data",
        *remarks,
        f"output_dir: {runs}/evaluate",
        "",
        "models:",
        f"  base: {runs}/pretrain",
        f"  sft: {runs}/sft",
        f"  dpo: {runs}/dpo",
        "",
        line(f"data: {runs}/data", "bits per byte of the validation split; lower is better"),
        line(f"tasks: [{', '.join(suites(size))}]", "suites of lm-eval, from the Hub"),
        line(f"batch_size: {16 if size < 1e9 else 4}", "lower it if memory runs out"),
        line("seed: 0", "draws the held-out records"),
    ]


def _export(plan: Plan, runs: str) -> list[str]:
    parameters, tokens = as_count(plan.architecture.num_parameters), as_count(plan.shape.tokens)
    return [
        "the folder to publish, with its model card",
        f"output_dir: {runs}/export",
        f"model: {runs}/dpo",
        f"name: scratch-{Path(runs).name}",
        "description: >-",
        f"  A language model of {parameters} parameters, trained from scratch on {tokens} tokens,",
        "  then tuned to answer.",
        f"evaluation: {runs}/evaluate",
    ]
