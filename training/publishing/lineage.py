"""Lineage of a model: the records of the stages that made it, and the data that each was trained on."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.hub_names import is_hub_name
from training.common.stage import read_provenance
from training.corpus.output.card import shown_path
from training.data.shards import MANIFEST

_CHECKPOINT = re.compile(r"(step|checkpoint)-\d+")  # of pretrain, and of transformers' Trainer


def lineage(folder: str | Path) -> list[dict[str, Any]]:
    """The provenance of a model and of the models it was trained from, oldest first.

    A checkpoint has the provenance of its run, with its name as `checkpoint`.
    """
    record = _record_of(Path(folder))
    return [*made_from(record.get("recipe", {})), *([record] if record else [])]


def made_from(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The lineage of the model that a recipe starts from; of an adapter that it merges, that of its run."""
    if recipe.get("adapter"):
        found = lineage(Path(recipe["adapter"]).parent)
        if found:
            return found
    start = _start_of(recipe)
    return lineage(start) if start else []


def base_model(records: list[dict[str, Any]]) -> str | None:
    """The model on the Hub that a lineage begins with, if it does."""
    start = _start_of(records[0]["recipe"]) if records else None
    return start if start and is_hub_name(start) else None


def _start_of(recipe: dict[str, Any]) -> str | None:
    """The model that a recipe starts from. `model` of a pretraining recipe is a mapping of sizes."""
    starts = (recipe.get("model_name_or_path"), recipe.get("model"))
    return next((start for start in starts if isinstance(start, str)), None)


def _record_of(folder: Path) -> dict[str, Any]:
    record = read_provenance(folder)
    if record or not _CHECKPOINT.fullmatch(folder.name):
        return record
    run = read_provenance(folder.absolute().parents[1])
    return run | {"checkpoint": folder.name} if run else {}


@dataclass
class TrainingData:
    """One set of data that a stage was trained on.

    Attributes:
        stage: its name.
        name: of a file without its folder, of a dataset on the Hub, or of a source of a corpus.
        license: as stated in the recipe of `scratch prepare`.
        documents, bytes: the size, if a corpus states it.
    """

    stage: str
    name: str
    license: str | None = None
    documents: int | None = None
    bytes: int | None = None

    @property
    def on_the_hub(self) -> bool:
        return is_hub_name(self.name)


def training_data(records: list[dict[str, Any]]) -> list[TrainingData]:
    """The data of every stage of a lineage."""
    return [data for record in records for data in _data_of(record["stage"], record["recipe"])]


def _data_of(stage: str, recipe: dict[str, Any]) -> Iterator[TrainingData]:
    data = recipe.get("data")
    if stage == "classify":
        yield TrainingData(stage, data.get("name") or shown_path(data["train"]))
    elif data:
        corpora = [data, *(recipe.get("curriculum") or {}).values()]
        folders = [folder for corpus in corpora for folder in (corpus if isinstance(corpus, dict) else [corpus])]
        for folder in dict.fromkeys(folders):
            yield from _sources_of(stage, Path(folder))
    for dataset in recipe.get("datasets") or []:
        files = [] if is_hub_name(dataset["path"]) else list(_strings(dataset.get("data_files")))
        for name in files or [dataset["path"]]:
            yield from _example_source(stage, name)
    if recipe.get("dataset_name"):
        yield from _example_source(stage, recipe["dataset_name"])


def _sources_of(stage: str, corpus: Path, kind: str = "") -> Iterator[TrainingData]:
    """The sources of a corpus that `scratch prepare` wrote, by its manifest."""
    file = corpus / MANIFEST
    if not file.is_file():  # deleted since
        yield TrainingData(stage, corpus.name)
        return
    recipe = read_provenance(corpus).get("recipe", {}).get("data", {})
    for name, source in json.loads(file.read_text(encoding="utf-8")).get("sources", {}).items():
        path = recipe.get("sources", {}).get(name, {}).get("path", name)
        shown = path if is_hub_name(path) else name
        size = {} if kind else {"documents": source["documents"], "bytes": source["bytes"]}
        yield TrainingData(stage, f"{kind}{shown}", source["license"], **size)


def _example_source(stage: str, name: str) -> Iterator[TrainingData]:
    """A file or dataset of examples. Those of `scratch prepare` were made from the sources of their corpus."""
    corpus = Path(name).parent.parent
    if read_provenance(corpus).get("stage") == "prepare":
        yield from _sources_of(stage, corpus, kind=f"{Path(name).parent.name} made from ")
    else:
        yield TrainingData(stage, name if is_hub_name(name) else shown_path(name))


def _strings(value: Any) -> Iterator[str]:
    """The texts in a text, list or mapping of TRL's `data_files`; of splits, only those that are trained on."""
    if isinstance(value, dict):
        for split, files in value.items():
            if split not in ("test", "validation"):
                yield from _strings(files)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif value:
        yield value
