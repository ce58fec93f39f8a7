"""Local data files of a tuning recipe: found by name or pattern, checked, and given to `datasets` as it reads them.

`datasets` reads plain JSON well. It would take words of a CSV for numbers or missing values, the earlier content of a
compressed file whose name gives no hint for the present one, and square brackets in a name for a pattern.
"""

import collections
import glob
import itertools
import json
import os
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import check_file, open_whole, reject_lfs_pointer, sha256
from training.corpus.sources.records import read_records
from training.stages.provenance import digest

JSON, CSV = RECORDS = ("json", "csv")  # values of `path` whose files `read_records` reads; `datasets` reads others
PROGRAMS = (*RECORDS, "parquet", "arrow", "text")  # values of `path` that are not folders
CONVERSION = 1  # in the names of converted copies; raise it when the records of a copy change
FILES, FOLDER = "datasets.data_files", "datasets.data_dir"


def data_files(entry: dict[str, Any]) -> dict[str, list[Path]]:
    """The files that an entry of `datasets` names in `data_files`, by split; empty if it names none.

    Each split has a name or a list of them. A name that is not that of a file may be a pattern, such as `part*.jsonl`.

    Raises:
        UserError: no file of that name, or none that matches.
    """
    named = entry.get("data_files")
    if named is None:
        return {}
    splits = named if isinstance(named, dict) else {"train": named}
    return {
        split: [file for name in (names if isinstance(names, list) else [names]) for file in _find(name, entry)]
        for split, names in splits.items()
    }


def _find(name: Any, entry: dict[str, Any]) -> list[Path]:
    if not isinstance(name, str):
        raise UserError(f"'{FILES}' takes names of files, not {name!r}")
    folder = _folder(entry)
    if (folder / name).is_dir():
        raise UserError(f"'{FILES}': {folder / name} is a folder; name its files, as in {name.rstrip('/')}/*.jsonl")
    if (folder / name).exists() or not glob.has_magic(name):
        return [folder / name]
    found = [folder / match for match in sorted(glob.glob(name, root_dir=folder, recursive=True))]
    files = [path for path in found if path.is_file()]
    if not files:
        raise UserError(f"'{FILES}': no file matches {folder / name}")
    return files


def _folder(entry: dict[str, Any]) -> Path:
    """The folder in which an entry of `datasets` looks for files; the current one unless it names another."""
    path = entry.get("path")
    own = path if isinstance(path, str) and path not in PROGRAMS and os.path.isdir(path) else ""
    return Path(own, entry.get("data_dir") or "")


def digest_files(datasets: list[dict[str, Any]]) -> dict[str, str]:
    """The digests of all local files and folders that the entries of `datasets` name.

    Raises:
        UserError: a file is missing, empty, or a pointer of Git LFS.
    """
    digests = {}
    for entry in datasets:
        files = [file for found in data_files(entry).values() for file in found]
        for file in files:
            digests[str(file)] = digest(file, FILES)
            reject_lfs_pointer(file)
            if file.stat().st_size == 0:
                raise UserError(f"'{FILES}': {file} is empty; run the stage that writes it again")
        if not files and _folder(entry) != Path():
            digests[str(_folder(entry))] = digest(_folder(entry), FOLDER)
    return digests


def readable_files(entry: dict[str, Any]) -> dict[str, list[str]] | None:
    """The `data_files` of an entry of `datasets` as `datasets` reads them; None if it names none.

    Raises:
        UserError: a file is not readable, or does not hold records.
    """
    found = data_files(entry)
    if not found:
        return entry.get("data_files")
    if entry["path"] in RECORDS:
        found = {split: [_as_json(file, entry["path"] == CSV) for file in files] for split, files in found.items()}
    return {split: [glob.escape(os.path.abspath(file)) for file in files] for split, files in found.items()}


def _as_json(file: Path, table: bool) -> Path:
    """A file of the same records, all of them checked, as `datasets` reads JSON: itself, or a copy in its cache."""
    import datasets

    check_file(file, FILES)
    kind = "".join([CSV] * table + file.suffixes[-2:])
    copy = Path(datasets.config.HF_DATASETS_CACHE, "scratch", f"{sha256(file)}{kind}.{CONVERSION}.jsonl")
    if copy.is_file():
        return copy
    with file.open("rb") as stream:
        is_json = not table and stream.read(1000).lstrip()[:1] in (b"{", b"[")
    try:
        records = read_records(file, table)
        first = next(records, None)
        if first is None:
            raise UserError(f"{file} holds no records")
        if is_json:
            collections.deque(records, maxlen=0)
            return file
        copy.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(copy, shared=True) as stream:
            for _, record in itertools.chain([first], records):
                stream.write(json.dumps(record).encode() + b"\n")
    except UserError as error:
        raise UserError(f"'{FILES}': {error}") from None
    return copy
