"""Lineage of a model: the records of the stages that made it, and the data that each was trained on."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.json_files import read_json
from training.corpus.output.card import shown_path
from training.corpus.sources.files import is_hub_dataset
from training.data.shards import MANIFEST
from training.stages.provenance import read_provenance

_MANIFEST = {"sources": {str: {"license": (str, type(None)), "documents": int, "bytes": int}}}
_CHECKPOINT = re.compile(r"(step|checkpoint)-\d+")  # of pretrain, and of transformers' Trainer


def lineage(folder: str | Path) -> list[dict[str, Any]]:
    """The provenance of a model and of the models it was trained from, oldest first.

    A checkpoint has the provenance of its run, with its name as `checkpoint`.
    """
    return _lineage(Path(folder), frozenset())


def made_from(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The lineage of the model that a recipe starts from; with an adapter to merge, that of the adapter's run."""
    return _made_from(recipe, frozenset())


def _lineage(folder: Path, seen: frozenset[Path]) -> list[dict[str, Any]]:
    record = _record_of(folder)
    if not record or folder in seen:  # a folder may have been written again, from a model that was made from it
        return []
    return [*_made_from(record["recipe"], seen | {folder}), record]


def _made_from(recipe: dict[str, Any], seen: frozenset[Path]) -> list[dict[str, Any]]:
    adapter, start = recipe.get("adapter"), _start_of(recipe)
    folders = [Path(adapter), Path(adapter).parent] if isinstance(adapter, str) else []
    folders += [Path(start)] if start else []
    return next(filter(None, (_lineage(folder, seen) for folder in folders)), [])


def base_model(records: list[dict[str, Any]]) -> str | None:
    """The model on the Hub that a lineage begins with, if it does: the digest of its input is then its name."""
    start = _start_of(records[0]["recipe"]) if records else None
    return start if start and records[0]["inputs"].get("model", "").partition("@")[0] == start else None


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
        return is_hub_dataset(self.name)


def training_data(records: list[dict[str, Any]]) -> list[TrainingData]:
    """The data of every stage of a lineage."""
    return [data for record in records for data in _data_of(record["stage"], record["recipe"])]


def _data_of(stage: str, recipe: dict[str, Any]) -> Iterator[TrainingData]:
    data = recipe.get("data")
    if stage == "classify" and isinstance(data, dict):
        for name in _texts(data.get("name") or data.get("train")):
            yield _named(stage, name)
    elif data:
        curriculum = recipe.get("curriculum")
        phases = [data, *(curriculum.values() if isinstance(curriculum, dict) else ())]
        folders = [folder for phase in phases for folder in _texts(list(phase) if isinstance(phase, dict) else phase)]
        for folder in dict.fromkeys(folders):
            yield from _sources_of(stage, Path(folder))
    datasets = recipe.get("datasets")
    for dataset in datasets if isinstance(datasets, list) else ():
        path, files = dataset.get("path"), _texts(dataset.get("data_files"))
        for name in _texts(path) if is_hub_dataset(str(path)) else files or _texts(path):
            yield from _examples(stage, name)
    for name in _texts(recipe.get("dataset_name")):
        yield from _examples(stage, name)


def _sources_of(stage: str, corpus: Path, examples: str = "") -> Iterator[TrainingData]:
    """The sources of a corpus that `scratch prepare` wrote, by its manifest.

    Args:
        examples: name of the kind that was made from them.
    """
    try:
        sources = read_json(corpus / MANIFEST, _MANIFEST)["sources"]
    except (OSError, ValueError):  # deleted since, or not a corpus
        yield TrainingData(stage, corpus.name)
        return
    recipe = read_provenance(corpus).get("recipe", {}).get("data", {})
    for name, source in sources.items():
        path = recipe.get("sources", {}).get(name, {}).get("path", name)
        shown, license = path if is_hub_dataset(path) else name, source["license"]
        if examples:
            yield TrainingData(stage, f"{examples} made from {shown}", license)
        else:
            yield TrainingData(stage, shown, license, source["documents"], source["bytes"])


def _examples(stage: str, name: str) -> Iterator[TrainingData]:
    """A file or dataset of examples. Those of `scratch prepare` were made from the sources of their corpus."""
    corpus = Path(name).parent.parent
    if read_provenance(corpus).get("stage") == "prepare":
        yield from _sources_of(stage, corpus, Path(name).parent.name)
    else:
        yield _named(stage, name)


def _named(stage: str, name: str) -> TrainingData:
    return TrainingData(stage, name if is_hub_dataset(name) else shown_path(name))


def _texts(value: Any) -> list[str]:
    """The texts in a text, list or mapping, such as TRL's `data_files`; of splits, only those that are trained on."""
    if isinstance(value, dict):
        return [text for split, item in value.items() if split not in ("test", "validation") for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
