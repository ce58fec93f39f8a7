"""Local data for lm-eval's tasks: the same tasks on machines that cannot reach the Hub.

A folder may hold a copy of a dataset of the Hub under its own name, `DIR/allenai/ai2_arc`, for any task of lm-eval;
and single files for the sets in `data_sets`, `DIR/arc_easy.jsonl`, in the Hub's columns or another known format. The
task stays lm-eval's own; only the path of its data changes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.common.errors import UserError
from training.corpus.sources.records import read_records
from training.eval.harness.data_sets import DataSet, Record, known_set

SPLITS = {
    "train": "train",
    "dev": "dev",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
_ENDINGS = (".jsonl", ".jsonl.gz")
_SHOWN = 12  # maximum number of files that an error lists


@dataclass(frozen=True)
class LocalTask:
    """A task of lm-eval and its local data.

    Attributes:
        task: its name.
        definition: lm-eval's own file that defines it.
        source: the files of the data, for a comment in the task file.
        copy: a local copy of the Hub's dataset, or None.
        splits: without a copy, the records in the Hub's columns by split.
        absent: keys of the task definition that name missing splits.
    """

    task: str
    definition: Path
    source: str
    copy: Path | None
    splits: dict[str, list[Record]]
    absent: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the task's file, and its records beside it. `rewrite_data_paths` serves a folder renamed later."""
        content: dict[str, Any] = {"include": str(self.definition), "task": self.task}
        if self.copy:
            content["dataset_path"] = str(self.copy)
        else:
            files = {}
            for split, records in self.splits.items():
                file = folder.resolve() / "data" / f"{self.task}-{split}.jsonl"
                file.parent.mkdir(parents=True, exist_ok=True)
                lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
                file.write_text("".join(lines), encoding="utf-8")
                files[split] = str(file)
            content |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
            content |= dict.fromkeys(self.absent)
        text = f"# lm-eval's own task on items from {self.source}\n" + yaml.safe_dump(content, sort_keys=False)
        (folder / f"{self.task}.yaml").write_text(text, encoding="utf-8")


def rewrite_data_paths(folder: Path, destination: Path) -> None:
    """Change the paths of data in the task files of a folder that will be renamed to `destination`."""
    for file in folder.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(str(folder.resolve()), str(destination.absolute())), encoding="utf-8")


class LocalData:
    """A folder of evaluation data.

    Args:
        folder: the recipe's `data_dir`.

    Attributes:
        used: files and folders that tasks read.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise UserError(f"'data_dir': no such folder: {folder}")
        self.folder = folder
        self.used: set[Path] = set()
        self._read: dict[tuple[str, str], dict[str | None, list[Record]]] = {}

    def task(self, name: str, definition: Path, config: dict[str, Any], shots: int) -> LocalTask | None:
        """Find the data of one task.

        Args:
            name: of the task.
            definition: lm-eval's file that defines it.
            config: the content of that file, as lm-eval reads it.
            shots: few-shot examples before each item.

        Returns:
            None if the file of a set has no item of this subset, such as one paradigm of BLiMP.

        Raises:
            UserError: no data for it, or a record in an unknown format.
        """
        path = config.get("dataset_path")
        if not path:
            raise UserError(f"'data_dir': lm-eval generates the data of {name}; leave this task out")
        copy = self.folder / path
        if copy.is_dir():
            self.used.add(copy)
            return LocalTask(name, definition, str(copy), copy.resolve(), {})
        data_set = known_set(path, config.get("dataset_name"))
        if data_set is None:
            raise UserError(
                f"'data_dir': {self.folder} has no data for {name}; add a copy of the Hub's dataset {path} as {copy} "
                f"({self._listing()})"
            )
        scored = config.get("test_split") or config["validation_split"]
        files = self._files(data_set, scored)
        if not files.get(scored):
            expected = " or ".join(f"{data_set.files[0]}{ending}" for ending in _ENDINGS)
            raise UserError(
                f"'data_dir': {self.folder} has no data for {name}; add {expected}, or a copy of the Hub's dataset "
                f"{path} as {copy} ({self._listing()})"
            )
        needed = [scored]
        examples = next(
            (config[key] for key in ("fewshot_split", "training_split", "validation_split") if config.get(key)), scored
        )
        if shots and examples != scored:
            if not files.get(examples):
                raise UserError(
                    f"'num_fewshot': the examples of {name} come from its split '{examples}', but {self.folder} has "
                    f"no {data_set.files[0]}_{examples}.jsonl; add it, or set num_fewshot to 0"
                )
            needed.append(examples)
        subset = config.get("dataset_name") if data_set.by else None
        splits = {split: self._records(data_set, split, files[split]).get(subset, []) for split in needed}
        if not splits[scored]:
            return None
        absent = tuple(key for key in _SPLIT_KEYS if config.get(key) and config[key] not in splits)
        return LocalTask(name, definition, ", ".join(map(str, files[scored])), None, splits, absent)

    def _files(self, data_set: DataSet, scored: str) -> dict[str, list[Path]]:
        """The files of a set by split, under the first of its names that matches a file."""
        for name in data_set.files:
            named: dict[str, list[Path]] = {}
            unnamed = []
            for file in sorted([*self.folder.iterdir(), *(self.folder / name).glob("*")]):
                stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
                if not file.name.endswith(_ENDINGS):
                    continue
                if file.parent != self.folder:
                    suffix = stem
                elif stem == name:
                    suffix = ""
                elif match := re.fullmatch(rf"{name}[_-](\w+)", stem):
                    suffix = match[1]
                else:
                    continue
                if suffix in SPLITS:
                    named.setdefault(SPLITS[suffix], []).append(file)
                elif len(suffix) < 2 or file.parent != self.folder:  # the whole set, or a file such as `_a`
                    unnamed.append(file)
            if named or unnamed:
                return {scored: unnamed} | named
        return {}

    def _records(self, data_set: DataSet, split: str, files: list[Path]) -> dict[str | None, list[Record]]:
        """The records of a split by subset; under None if the set has no subsets."""
        key = (data_set.files[0], split)
        if key not in self._read:
            subsets: dict[str | None, list[Record]] = {}
            for file in files:
                self.used.add(file)
                for record in _converted(file, data_set):
                    subsets.setdefault(record[data_set.by] if data_set.by else None, []).append(record)
            self._read[key] = subsets
        return self._read[key]

    def _listing(self) -> str:
        names = sorted(file.name for file in self.folder.iterdir())
        if not names:
            return "the folder is empty"
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"it holds {', '.join(names[:_SHOWN])}{more}"


def _converted(file: Path, data_set: DataSet) -> Iterator[Record]:
    """Yield the records of a file in the Hub's columns."""
    try:
        for number, record in read_records(file):
            try:
                yield data_set.to_hub(record)
            except ValueError as error:
                raise UserError(f"{file}:{number}: {error}") from None
    except UserError as error:
        raise UserError(f"'data_dir': {error}") from None
