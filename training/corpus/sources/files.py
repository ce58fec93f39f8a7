"""The files of a path, in an order that does not depend on the file system."""

import glob
import json
import os
from dataclasses import dataclass
from pathlib import Path

from training.common.errors import UserError
from training.common.hub_names import is_hub_name
from training.common.recipe import nearest
from training.corpus.sources.config import PYTHON, STDIN

TEXT, HTML, JSON_LINES, CSV = (".txt", ".md", ".py"), (".html", ".htm"), (".jsonl", ".ndjson"), (".csv", ".tsv")
PARQUET, ARROW = (".parquet",), (".arrow", ".feather")
STREAMED = TEXT + HTML + JSON_LINES + CSV  # those that may be compressed
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
SUFFIXES = STREAMED + PARQUET + ARROW

_READABLE = f"{' '.join(SUFFIXES)} (the first {len(STREAMED)} also with {' '.join(COMPRESSIONS)})"


@dataclass(frozen=True)
class SourceFile:
    """A file to read, not opened yet.

    Attributes:
        path: where it is; None for standard input.
        name: prefix of its documents' ids, unique in the source.
        group: of its documents. The subfolders of a folder are the groups; each file directly in it is its own group.
        kind: its extension without that of the compression, such as `.jsonl`.
        compression: such as `.gz`, or empty.
        same_as: name of an earlier file of the source that is the same file, through a link.
    """

    path: Path | None
    name: str
    group: str
    kind: str
    compression: str
    same_as: str | None = None

    def __str__(self) -> str:
        return "standard input" if self.path is None else str(self.path)


def is_hub_dataset(path: str) -> bool:
    """Whether a path means a dataset on the Hub: `owner/name`, without a file extension."""
    return is_hub_name(path) and not _kind(path, named=True)


def is_local(path: str) -> bool:
    """Whether a path means files on this machine."""
    return path not in (PYTHON, STDIN) and not is_hub_dataset(path)


def list_files(path: str, split: str, key: str) -> list[SourceFile]:
    """The readable files of a file name, folder or glob, sorted by the parts of their paths.

    Args:
        split: of a folder with several, as `DatasetDict.save_to_disk` writes it.
        key: of the source in the recipe, for error messages.

    Raises:
        UserError: there are none, or a folder may not be listed.
    """
    expanded = Path(path).expanduser()
    if expanded.is_file():
        if not _kind(expanded.name, named=True):
            raise UserError(f"'{key}.path': {path}: unknown file type; supported: {_READABLE}")
        base, found, named = expanded.parent, [expanded], True
    elif expanded.is_dir():
        base, found, named = expanded, _below(expanded, split, key), False
    elif glob.has_magic(path):
        parts = expanded.parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        base, named = Path(*parts[:fixed]), True
        found = [Path(name) for name in glob.glob(str(expanded), recursive=True) if os.path.isfile(name)]
    else:
        raise UserError(f"'{key}.path': no such file or folder: {path} (a Hub dataset is written owner/name)")
    files, seen = [], {}
    for file in sorted(found):
        kind = _kind(file.name, named)
        if not kind:
            continue
        name = file.relative_to(base).as_posix()
        same_as = seen.setdefault(os.path.realpath(file), name)
        files.append(SourceFile(file, name, name.split("/")[0], *kind, same_as if same_as != name else None))
    if not files:
        raise UserError(f"'{key}.path': {path}: no file of a supported type: {_READABLE}")
    return files


def _kind(name: str, named: bool) -> tuple[str, str] | None:
    """Kind and compression by file extension. `.json` counts as JSON lines if the user `named` the file; in a folder it
    more often holds metadata."""
    name = name.lower()
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    kind = Path(name.removesuffix(compression)).suffix
    if kind == ".json" and named:
        kind = ".jsonl"
    known = STREAMED if compression else SUFFIXES
    return (kind, compression) if kind in known else None


def _below(folder: Path, split: str, key: str) -> list[Path]:

    try:
        splits = folder / "dataset_dict.json"
        if splits.is_file():
            names = json.loads(splits.read_text(encoding="utf-8"))["splits"]
            if split not in names:
                raise UserError(f"'{key}.split': {folder} has no split '{split}'; {nearest(split, names)}")
            folder = folder / split
        state = folder / "state.json"
        if (folder / "dataset_info.json").is_file() and state.is_file():
            # The folder may also hold cache files with the same extension, which repeat the data.
            return [folder / row["filename"] for row in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{key}.path': {folder}: damaged; write it again with save_to_disk") from None

    def reject(error: OSError) -> None:
        raise UserError(f"'{key}.path': {error.filename} cannot be listed ({error.strerror})")

    # Not `rglob`, which silently skips folders that it may not list.
    walk = os.walk(folder, onerror=reject)
    paths = (Path(parent, name) for parent, _, names in walk for name in names)
    return [path for path in paths if path.is_file()]
