"""The data of lm-eval's tasks from local files: the same tasks, where the Hub is out of reach.

Two things may lie in the folder: a copy of a data set of the Hub under its own name, `DIR/allenai/ai2_arc`, for any
task of lm-eval; and single files for the sets in `data_sets`, `DIR/arc_easy.jsonl`, in the Hub's columns or another
known shape. The task stays lm-eval's own, with nothing but the place of its data changed.
"""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.common.errors import UserError
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
_SHOWN = 12  # files of a folder that an error names


@dataclass(frozen=True)
class LocalTask:
    """A task of lm-eval and its local data.

    Attributes:
        task: its name.
        definition: lm-eval's own file of it.
        source: where the data come from, for people.
        copy: of the Hub's data set, or None.
        splits: records in the Hub's columns by split, where there is no copy.
        absent: keys of the task that name splits which are not there.
    """

    task: str
    definition: Path
    source: str
    copy: Path | None
    splits: dict[str, list[Record]]
    absent: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the task's file, and its records beside it; see `moved` for a folder that is renamed later."""
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


def moved(folder: Path, destination: Path) -> None:
    """Say in the task files of a folder that it will be called `destination`."""
    for file in folder.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(str(folder.resolve()), str(destination.absolute())), encoding="utf-8")


class LocalData:
    """A folder of evaluation data.

    Args:
        folder: as the recipe's `data_dir`.

    Attributes:
        used: the files and folders that tasks took their data from.

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
            config: of the task, as lm-eval reads it from `definition`.
            shots: few-shot examples it will be given.

        Returns:
            None where the file of a set has no item of this part of it, such as one paradigm of BLiMP.

        Raises:
            UserError: no data for it there, or a record of the wrong shape.
        """
        path = config.get("dataset_path")
        if not path:
            raise UserError(f"'data_dir': {name} makes its data itself in lm-eval; leave it out")
        copy = self.folder / path
        if copy.is_dir():
            self.used.add(copy)
            return LocalTask(name, definition, str(copy), copy.resolve(), {})
        data_set = known_set(path, config.get("dataset_name"))
        if data_set is None:
            raise UserError(
                f"'data_dir': {self.folder} has no data for {name}; it takes a copy of the Hub's data set {path} as "
                f"{copy}; {self._listing()}"
            )
        judged = config.get("test_split") or config["validation_split"]
        files = self._files(data_set, judged)
        if not files.get(judged):
            expected = " or ".join(f"{data_set.files[0]}{ending}" for ending in _ENDINGS)
            raise UserError(
                f"'data_dir': {self.folder} has no data for {name}; it takes {expected}, or a copy of the Hub's data "
                f"set {path} as {copy}; {self._listing()}"
            )
        wanted = [judged]
        examples = next(
            (config[key] for key in ("fewshot_split", "training_split", "validation_split") if config.get(key)), judged
        )
        if shots and examples != judged:
            if not files.get(examples):
                raise UserError(
                    f"'num_fewshot': the examples of {name} come from its split '{examples}', and {self.folder} has "
                    f"no {data_set.files[0]}_{examples}.jsonl; put it there, or set num_fewshot to 0"
                )
            wanted.append(examples)
        part = config.get("dataset_name") if data_set.by else None
        splits = {split: self._records(data_set, split, files[split]).get(part, []) for split in wanted}
        if not splits[judged]:
            return None
        absent = tuple(key for key in _SPLIT_KEYS if config.get(key) and config[key] not in splits)
        return LocalTask(name, definition, ", ".join(map(str, files[judged])), None, splits, absent)

    def items(self, path: str, name: str, split: str) -> list[Record]:
        """The records of a set that is no task of lm-eval's, in the Hub's columns.

        Raises:
            UserError: no file of it, or a record of the wrong shape.
        """
        config = {"dataset_path": path, "test_split": split}
        found = self.task(name, Path(), config, shots=0)
        return found.splits[split]

    def _files(self, data_set: DataSet, judged: str) -> dict[str, list[Path]]:
        """The files of a set by split, under the first of its names that any file has."""
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
                elif len(suffix) < 2 or file.parent != self.folder:  # the whole set, or a part such as `_a`
                    unnamed.append(file)
            if named or unnamed:
                return {judged: unnamed} | named
        return {}

    def _records(self, data_set: DataSet, split: str, files: list[Path]) -> dict[str | None, list[Record]]:
        """The records of a split, by part where the set has parts, else under None."""
        key = (data_set.files[0], split)
        if key not in self._read:
            parts: dict[str | None, list[Record]] = {}
            for file in files:
                self.used.add(file)
                for number, record in _lines(file):
                    try:
                        converted = data_set.to_hub(record)
                    except ValueError as error:
                        raise UserError(f"'data_dir': {file}:{number}: {error}") from None
                    parts.setdefault(converted[data_set.by] if data_set.by else None, []).append(converted)
            self._read[key] = parts
        return self._read[key]

    def _listing(self) -> str:
        names = sorted(file.name for file in self.folder.iterdir())
        if not names:
            return "it is empty"
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"there are {', '.join(names[:_SHOWN])}{more}"


def _lines(file: Path) -> Iterator[tuple[int, Record]]:
    opener = gzip.open if file.suffix == ".gz" else open
    number = 0
    try:
        with opener(file, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise UserError(f"'data_dir': {file}:{number}: a record is an object, not {line.strip():.40}")
                    yield number, record
    except json.JSONDecodeError as error:
        raise UserError(f"'data_dir': {file}:{number}: not valid JSON ({error.msg})") from None
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise UserError(f"'data_dir': {file}: cannot be read, damaged, or not UTF-8 ({error})") from None
