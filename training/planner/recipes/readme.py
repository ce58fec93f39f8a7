"""The README of a recipe that the planner writes: what it needs by the plan, its data, its commands."""

import textwrap
from pathlib import Path

from training.common.tables import Row, as_markdown
from training.planner.plan import Plan
from training.planner.recipes.launch_files import launch_files
from training.planner.recipes.mixtures import PREFERENCES, conversations, suites
from training.planner.recipes.text import sources_of
from training.planner.report import describe, remarks, summary, tables
from training.planner.units import as_count, as_decimal_bytes


def readme(plan: Plan, folder: Path) -> str:
    """The text of README.md."""
    parameters, tokens = as_count(plan.architecture.num_parameters), as_count(plan.shape.tokens)
    introduction = (
        f"All stages from data to export, written by `scratch plan` for {plan.layout.describe()}. The recipe has not "
        f"been run at this size: the figures below are predictions. `scratch plan --check runs/{folder.name}` compares "
        "them with what a run measures."
    )
    return f"""\
# {folder.name}: {parameters} parameters on {tokens} tokens

{_wrapped(introduction)}

## Plan

{_described(plan)}

{_plan(plan)}

## Data

{as_markdown(_data_table(plan))}
Sizes are the clean text that is taken of a source at most. Evaluated on bits per byte of the validation split, and on
the suites {", ".join(suites(plan.architecture.num_parameters))}.

## Commands

```bash
{_commands(plan, folder)}
```
"""


def _described(plan: Plan) -> str:
    sentences = [*(f"{line}." for line in describe(plan).splitlines()), " ".join(summary(plan))]
    return "\n\n".join(map(_wrapped, sentences))


def _plan(plan: Plan) -> str:
    """All tables of the plan, and the remarks below them."""
    parts = [f"### {title}\n\n{as_markdown(table)}" for title, table in tables(plan)]
    return "\n".join([*parts, *(_wrapped(f"- {remark}", "  ") for remark in remarks(plan))])


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_on_hyphens=False)


def _data_table(plan: Plan) -> list[Row]:
    parameters, sources = plan.architecture.num_parameters, sources_of(plan)
    total = sum(sources.values())
    tuning = conversations(parameters)
    return [
        ["stage", "data set on the Hub", "licence", "share", "size"],
        *[
            [
                *("pretrain", source.path, source.license),
                *(f"{size / total:.0%}", as_decimal_bytes(min(size, source.available))),
            ]
            for source, size in sources.items()
        ],
        ["sft", tuning.path, tuning.license, "", ""],
        ["dpo", PREFERENCES.path, PREFERENCES.license, "", ""],
    ]


def _commands(plan: Plan, folder: Path) -> str:
    launches = launch_files(plan)
    whole = f"scratch run {folder.as_posix()}"
    many = [stage for stage, text in launches.items() if "\nrdzv_backend" in text]
    if not many:
        return whole
    lines = [f"{whole}    # tokenizer and prepare; it then names the stages to start on several machines"]
    for stage in many:
        file = f"{folder.as_posix()}/accelerate/{stage}.yaml"
        lines.append(
            f"accelerate launch --config_file {file} --machine_rank RANK --main_process_ip ADDRESS -m training {stage} "
            f"--config {folder.as_posix()}/{stage}.yaml"
        )
        lines.append(f"{whole}    # the next stages")
    return "\n".join(lines)
