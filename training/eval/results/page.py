"""results.md: the table with its notes and the conditions of the evaluation."""

import importlib.metadata
from typing import Any

import torch

from training.common.device import has_bf16
from training.common.tables import Row, as_markdown
from training.eval.measures.measure import Measure

BF16 = "bfloat16 autocast (bits per byte, pairs), bfloat16 (generated answers), the model's own (tasks, reward models)"


def conditions(measures: list[Measure], device: torch.device, seed: int) -> dict[str, Any]:
    """The conditions of an evaluation, by heading; each figure has its count beside it."""
    packages = ["torch", "transformers", *(["lm_eval"] if any(one.kind == "tasks" for one in measures) else [])]
    found = {"device": device.type, "precision": BF16 if has_bf16(device) else "the model's own"}
    for measure in measures:
        found |= measure.conditions()
    return found | {
        "errors": "one standard error of the sample of items; training was not repeated",
        "seed": seed,
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


def page(table: list[Row], subtasks: dict[str, list[Row]], notes: list[str], conditions: dict[str, Any]) -> str:
    """The content of results.md: the table, its notes and conditions, and a table of the tasks in each group."""
    lines = "".join(f"- {note}\n" for note in notes)
    lines += "".join(f"- {key.replace('_', ' ')}: {value}\n" for key, value in conditions.items() if key != "versions")
    versions = ", ".join(f"{package} {version}" for package, version in conditions["versions"].items())
    parts = "".join(f"\n## {group}\n\n{as_markdown(rows)}" for group, rows in subtasks.items())
    return f"# Evaluation\n\n{as_markdown(table)}\n{lines}- versions: {versions}\n{parts}"
