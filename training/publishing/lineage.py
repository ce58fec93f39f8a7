"""Lineage of a model: the records of the stages that made it, and the data that each was trained on.

A folder that a record names is read only if it still has the digest that the record has of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.json_files import read_json
from training.corpus.sources.files import is_hub_dataset
from training.data.shards import MANIFEST
from training.stages.provenance import digest, read_provenance

_MANIFEST = {"sources": {str: {"license": (str, type(None)), "documents": int, "bytes": int}}}
_CHECKPOINT = re.compile(r"(step|checkpoint)-\d+")  # of pretrain, and of transformers' Trainer


def lineage(folder: str | Path) -> list[dict[str, Any]]:
    """The provenance of a model and of the models it was trained from, oldest first.

    A checkpoint has the provenance of its run, with its name as `checkpoint`.
    """
    return _lineage(Path(folder), frozenset())


def made_from(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The lineage of the model that a recipe starts from; with an adapter to merge, that of the adapter's run."""
    return _made_from(recipe, None, frozenset())


def _lineage(folder: Path, seen: frozenset[Path]) -> list[dict[str, Any]]:
    record = _record_of(folder)
    if not record or folder in seen:  # records edited by hand may name each other
        return []
    return [*_made_from(record["recipe"], record["inputs"], seen | {folder}), record]


def _made_from(
    recipe: dict[str, Any], inputs: dict[str, str] | None, seen: frozenset[Path]
) -> list[dict[str, Any]]:
    """As `made_from`.

    Args:
        inputs: digests that the model and the adapter must have, as a record has them; None for any.
        seen: folders on the way here.
    """
    adapter, start = recipe.get("adapter"), _start_of(recipe)
    folders = []
    if isinstance(adapter, str) and (inputs is None or _is_unchanged(adapter, inputs.get("adapter"))):
        folders += [Path(adapter), Path(adapter).parent]
    if start and (inputs is None or _is_unchanged(start, inputs.get("model"))):
        folders += [Path(start)]
    return next(filter(None, (_lineage(folder, seen) for folder in folders)), [])


def _is_unchanged(path: str | Path, recorded: str | None) -> bool:
    """Whether a file or folder is what a stage read, by the digest in the stage's record."""
    try:
        return recorded is not None and digest(path) == recorded
    except UserError:  # deleted, incomplete or damaged since
        return False


def answers_messages(folder: str | Path, model: str | Path, adapter: str | Path | None = None) -> bool:
    """Whether a model answers messages: its tokenizer has a chat template, and it was trained after pretraining.

    Args:
        folder: holds the tokenizer.
        model, adapter: folders of the model, and of the adapter that is merged into it.
    """
    from transformers import AutoTokenizer

    from training.model_io.tokenizers import has_tokenizer

    if not has_tokenizer(folder) or AutoTokenizer.from_pretrained(folder).chat_template is None:
        return False
    records = made_from({"model": model, "adapter": adapter})
    trained_by = [record["stage"] for record in records if record["stage"] not in ("export", "import")]
    # The tokenizer of a base model has our template too.
    return bool(adapter) or trained_by[-1:] != ["pretrain"]


def names_in_evaluation(evaluation: str, model: str, model_digest: str) -> tuple[str, ...]:
    """The names of a model in an output of `scratch evaluate`.

    Raises:
        UserError: the evaluation has no scores of the model as it is now.
    """
    measured = {
        key.removeprefix("models."): digest
        for key, digest in read_provenance(evaluation).get("inputs", {}).items()
        if key.startswith("models.")
    }
    names = tuple(name for name, digest in measured.items() if digest == model_digest)
    if not names:
        raise UserError(
            f"'evaluation': {evaluation} has no scores of {model} as it is now (its models: "
            f"{', '.join(measured) or 'not recorded'}); evaluate this model, or leave 'evaluation' out"
        )
    return names


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
        name: of a file without its folder, of a dataset on the Hub, or of a source of a corpus; "a folder".
        on_the_hub: whether `name` is that of a dataset on the Hub.
        license: as stated in the recipe of `scratch prepare`.
        documents, bytes: the size, if a corpus states it.
    """

    stage: str
    name: str
    on_the_hub: bool = False
    license: str | None = None
    documents: int | None = None
    bytes: int | None = None


def training_data(records: list[dict[str, Any]]) -> list[TrainingData]:
    """The data of every stage of a lineage."""
    return [data for record in records for data in _data_of(record)]


def _data_of(record: dict[str, Any]) -> Iterator[TrainingData]:
    stage, recipe, inputs = record["stage"], record["recipe"], record["inputs"]
    data = recipe.get("data")
    if stage == "classify" and isinstance(data, dict):
        for name in _texts(data.get("name") or data.get("train")):
            yield _named(stage, name, local=not data.get("name"))
    elif data:
        curriculum = recipe.get("curriculum")
        phases = [data, *(curriculum.values() if isinstance(curriculum, dict) else ())]
        folders = [folder for phase in phases for folder in _texts(list(phase) if isinstance(phase, dict) else phase)]
        for folder in dict.fromkeys(folders):
            recorded = inputs.get(f"data.{folder}", inputs.get("data"))
            if _is_unchanged(folder, recorded):
                yield from _sources_of(stage, Path(folder))
            else:
                yield TrainingData(stage, Path(folder).name)
    datasets = recipe.get("datasets")
    for dataset in datasets if isinstance(datasets, list) else ():
        path, files = dataset.get("path"), _texts(dataset.get("data_files"))
        on_the_hub = is_hub_dataset(str(path)) and not _is_recorded(path, inputs)
        for name in _texts(path) if on_the_hub else files or _texts(path):
            yield from _examples(stage, name, inputs)
    for name in _texts(recipe.get("dataset_name")):
        yield from _examples(stage, name, inputs)


def _sources_of(stage: str, corpus: Path, examples: str = "") -> Iterator[TrainingData]:
    """The sources of a corpus that `scratch prepare` wrote, by its manifest.

    Args:
        examples: name of the kind that was made from them.
    """
    try:
        sources = read_json(corpus / MANIFEST, _MANIFEST)["sources"]
    except (OSError, ValueError):  # not a corpus
        yield TrainingData(stage, corpus.name)
        return
    recipe = read_provenance(corpus).get("recipe", {}).get("data", {})
    for name, source in sources.items():
        path = recipe.get("sources", {}).get(name, {}).get("path", name)
        on_the_hub, license = is_hub_dataset(path), source["license"]
        shown = path if on_the_hub else name
        if examples:
            yield TrainingData(stage, f"{examples} made from {shown}", license=license)
        else:
            yield TrainingData(stage, shown, on_the_hub, license, source["documents"], source["bytes"])


def _examples(stage: str, name: str, inputs: dict[str, str]) -> Iterator[TrainingData]:
    """A file or dataset of examples. Those of `scratch prepare` were made from the sources of their corpus."""
    folder = Path(name).parent
    read = {file: recorded for file, recorded in inputs.items() if Path(file).parent == folder}
    prepared = read and read_provenance(folder.parent).get("stage") == "prepare"
    if prepared and all(_is_unchanged(file, recorded) for file, recorded in read.items()):
        yield from _sources_of(stage, folder.parent, folder.name)
    else:
        yield _named(stage, name, local=_is_recorded(name, inputs))


def _is_recorded(path: str, inputs: dict[str, str]) -> bool:
    """Whether a stage read this file or folder, or one in it, on its machine."""
    return any(Path(name).is_relative_to(path) for name in inputs)


def _named(stage: str, name: str, local: bool) -> TrainingData:
    """Data by their name on the Hub, or that of a file. The name of a folder may be that of the user.

    Args:
        local: whether `name` certainly means a file or folder, which may be gone.
    """
    if not local and is_hub_dataset(name):
        return TrainingData(stage, name, on_the_hub=True)
    path = Path(name)
    return TrainingData(stage, "a folder" if path.is_dir() or (local and not path.suffix) else path.name)


def _texts(value: Any) -> list[str]:
    """The texts in a text, list or mapping, such as TRL's `data_files`; of splits, only those that are trained on."""
    if isinstance(value, dict):
        return [text for split, item in value.items() if split not in ("test", "validation") for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
