"""results.json: the figures of every model, and the conditions under which they were measured.

Figures are nested by kind, name and metric, as in `models.base.figures.chats.sums.ends.value`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import write_whole
from training.common.json_files import read_json
from training.eval.measures.figures import Figure, MetricKey
from training.stages.recipe import build

RESULTS = "results.json"
Nested = dict[str, dict[str, dict[str, Any]]]  # by kind, name and metric
_MODEL = {
    **{"folder": str, "parameters": int, "seconds": {str: (int, float)}, "samples": {str: [{str: object}]}},
    **{"figures": {str: {str: {str: object}}}, "subtasks": {str: {str: {str: object}}}},
}


@dataclass
class ModelResults:
    """The results of one model.

    Attributes:
        folder: of the model, or its name on the Hub.
        parameters: number of parameters.
        seconds: that each measure took, by kind.
        figures, samples, subtasks: as in `MeasureResult`.
    """

    folder: str
    parameters: int
    seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[MetricKey, Figure] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    subtasks: dict[str, dict[MetricKey, Figure]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything, as in results.json."""
        return self.figures_to_json() | {
            "subtasks": {group: nest(_to_json(tasks))["tasks"] for group, tasks in self.subtasks.items()},
            "samples": self.samples,
        }

    def figures_to_json(self) -> dict[str, Any]:
        """The figures without samples and subtasks, for records that summarise a run."""
        return {
            "folder": self.folder,
            "parameters": self.parameters,
            "seconds": self.seconds,
            "figures": nest(_to_json(self.figures)),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "ModelResults":
        """The inverse of `to_json`. Raises TypeError or UserError if a figure has other fields or types."""
        subtasks = {group: _from_json({"tasks": tasks}) for group, tasks in entry["subtasks"].items()}
        return cls(**entry | {"figures": _from_json(entry["figures"]), "subtasks": subtasks})


@dataclass
class Results:
    """The content of results.json.

    Attributes:
        conditions: how the models were measured.
        models: results by the name of the model in the recipe.
    """

    conditions: dict[str, Any]
    models: dict[str, ModelResults] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write results.json, whole or not at all."""
        models = {name: model.to_json() for name, model in self.models.items()}
        content = {"conditions": self.conditions, "models": models}
        write_whole(folder / RESULTS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Read results.json. Raises OSError if it is missing, and ValueError if it is damaged."""
        file = folder / RESULTS
        try:
            content = read_json(file, {"conditions": {str: object}, "models": {str: _MODEL}})
            models = {name: ModelResults.from_json(entry) for name, entry in content["models"].items()}
            return cls(content["conditions"], models)
        except (ValueError, TypeError, UserError) as error:
            raise ValueError(f"{file} is damaged ({error})") from None


def nest(entries: Mapping[MetricKey, Any]) -> Nested:
    """Entries by kind, name and metric, for JSON."""
    nested: Nested = {}
    for key, entry in entries.items():
        nested.setdefault(key.kind, {}).setdefault(key.name, {})[key.metric] = entry
    return nested


def _to_json(figures: Mapping[MetricKey, Figure]) -> dict[MetricKey, dict[str, Any]]:
    return {key: figure.to_json() for key, figure in figures.items()}


def _from_json(nested: Nested) -> dict[MetricKey, Figure]:
    return {
        MetricKey(kind, name, metric): build(Figure, entry, f"{kind}, {name}", f"{metric}.")
        for kind, names in nested.items()
        for name, metrics in names.items()
        for metric, entry in metrics.items()
    }
