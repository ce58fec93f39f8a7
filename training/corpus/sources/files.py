"""The files of a path, in an order that does not depend on the file system.

Of a folder that is a data set with several splits, only the files of the requested split are text.
"""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from training.common.errors import UserError
from training.common.hub_names import is_hub_name
from training.corpus.sources.config import PYTHON, STDIN, SourceConfig
from training.corpus.sources.data_sets import data_set_files
from training.stages.provenance import PROVENANCE, is_set_aside, written_by

TEXT = (
    *(".txt", ".text", ".md", ".markdown", ".mdx", ".rst", ".adoc", ".org", ".tex"),
    *(".py", ".pyi", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp", ".hpp"),
    *(".cs", ".go", ".rs", ".swift", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".hs", ".ml", ".sh", ".sql"),
)
HTML, JSON_LINES, CSV = (".html", ".htm"), (".jsonl", ".ndjson"), (".csv", ".tsv")
PARQUET, ARROW = (".parquet",), (".arrow", ".feather")
STREAMED = TEXT + HTML + JSON_LINES + CSV  # those that may be compressed
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
SUFFIXES = STREAMED + PARQUET + ARROW

_READABLE = (
    ".txt .md .rst .tex and other text, .py .js .c and other code, .html .jsonl .csv .tsv "
    f"(all of them also with {' '.join(COMPRESSIONS)}), {' '.join(PARQUET + ARROW)}"
)
_SHOWN = 5  # endings that are not read, and outputs of stages, that are named
RUN_SUMMARY = "summary.md"  # `scratch run` writes it beside the outputs of its stages


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


@dataclass(frozen=True)
class Listing:
    """The files of a source.

    Attributes:
        files: those to read, sorted by the parts of their paths.
        notes: lines for the terminal about what is left out.
    """

    files: list[SourceFile]
    notes: list[str]


def is_hub_dataset(path: str) -> bool:
    """Whether a path means a dataset on the Hub: `owner/name`, without a file extension."""
    return is_hub_name(path) and not kind_of(path, named=True)


def is_local(path: str) -> bool:
    """Whether a path means files on this machine."""
    return path not in (PYTHON, STDIN) and not is_hub_dataset(path)


def find_files(config: SourceConfig, key: str) -> Listing:
    """The readable files of a file name, folder or glob.

    Of a folder that is a data set, those of one split. Hidden folders and the outputs of stages are not entered, links
    to folders are.

    Args:
        key: of the source in the recipe, for error messages.

    Raises:
        UserError: there are none, or a folder may not be listed.
    """
    path = config.path
    expanded = Path(path)
    walk = _Walk(config, key)
    if expanded.is_file():
        if not kind_of(expanded.name, named=True):
            raise UserError(f"'{key}.path': {path}: unknown file type; supported: {_READABLE}")
        base, found = expanded.parent, [(expanded, True)]
    elif expanded.is_dir():
        base, found = expanded, list(walk.files(expanded))
    elif glob.has_magic(path):
        parts = expanded.parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        base = Path(*parts[:fixed])
        found = [(Path(name), True) for name in glob.glob(str(expanded), recursive=True) if os.path.isfile(name)]
        if "**" in parts:
            found = [(file, named) for file, named in found if not walk.is_in_output(file, base)]
    else:
        raise UserError(f"'{key}.path': no such file or folder: {path} (a Hub dataset is written owner/name)")
    files, seen = [], {}
    for file, named in sorted(found):
        kind = kind_of(file.name, named)
        if not kind:
            walk.unread[file.suffix.lower() or "without an ending"] += 1
            continue
        name = file.relative_to(base).as_posix()
        same_as = seen.setdefault(os.path.realpath(file), name)
        files.append(SourceFile(file, name, name.split("/")[0], *kind, same_as if same_as != name else None))
    notes = [f"'{key}.path': {path}: {note}" for note in walk.notes()]
    if not files:
        raise UserError("; ".join([f"'{key}.path': {path}: no file of a supported type: {_READABLE}", *walk.notes()]))
    return Listing(files, notes)


def announced_files(config: SourceConfig, key: str) -> list[SourceFile]:
    """The files of `find_files`. Prints which others are left out."""
    listing = find_files(config, key)
    for note in listing.notes:
        tqdm.write(note, file=sys.stderr)
    return listing.files


def kind_of(name: str, named: bool) -> tuple[str, str] | None:
    """Kind and compression by file extension. `.json` counts as JSON lines if the user `named` the file; in a folder it
    more often holds metadata."""
    name = name.lower()
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    kind = Path(name.removesuffix(compression)).suffix
    if kind == ".json" and named:
        kind = ".jsonl"
    known = STREAMED if compression else SUFFIXES
    return (kind, compression) if kind in known else None


class _Walk:
    """A walk through the folders of a source.

    Attributes:
        unread: number of files that are not read, by ending.
    """

    def __init__(self, config: SourceConfig, key: str):
        self.config, self.key = config, key
        self.unread: Counter[str] = Counter()
        self._data_sets: list[str] = []
        self._outputs: dict[Path, str | None] = {}  # the stage that wrote each folder, if any
        self._hidden = 0

    def files(self, root: Path) -> Iterator[tuple[Path, bool]]:
        """Yield every file below a folder, and whether it was named: by a data set, rather than met on the way."""
        visited, folders = set(), [root]
        while folders:
            # Not `rglob`, which silently skips folders that it may not list.
            for parent, below, names in os.walk(folders.pop(0), onerror=self._reject):
                place = Path(parent)
                real = os.path.realpath(parent)
                if real in visited:
                    below.clear()
                    continue
                visited.add(real)
                of_data_set = data_set_files(place, names, self.config, self.key)
                if of_data_set is not None:
                    below.clear()
                    self._data_sets.append(str(place))
                    yield from ((file, True) for file in of_data_set)
                    continue
                entered = [name for name in below if not name.startswith(".")]
                self._hidden += len(below) - len(entered)
                outputs = [name for name in entered if self._is_output(place / name)]
                below[:] = sorted(set(entered) - set(outputs))
                folders += [place / name for name in below if (place / name).is_symlink()]
                for name in names:
                    if not (place / name).is_file():
                        self.unread["broken links" if (place / name).is_symlink() else "special files"] += 1
                    elif not (outputs and name == RUN_SUMMARY):
                        yield place / name, False

    def _reject(self, error: OSError) -> None:
        raise UserError(f"'{self.key}.path': {error.filename} cannot be listed ({error.strerror})")

    def _is_output(self, folder: Path) -> bool:
        """Whether a stage wrote a folder: its own output must not be its input the next time."""
        if folder not in self._outputs:
            self._outputs[folder] = written_by(folder) if (folder / PROVENANCE).is_file() else None
        return self._outputs[folder] is not None

    def is_in_output(self, file: Path, base: Path) -> bool:
        """Whether a file is in the output of a stage, below `base`, or the summary of a run."""
        above = [folder for folder in file.parents if folder.is_relative_to(base) and folder != base]
        beside = file.parent.iterdir() if file.name == RUN_SUMMARY else ()
        return any(self._is_output(folder) for folder in [*above, *beside])

    def notes(self) -> list[str]:
        """Lines about what was left out, and about data sets."""
        notes = []
        if self._data_sets:
            notes.append(f"read as a data set, its split '{self.config.split}' alone: {_first(self._data_sets)}")
        finished = (folder for folder, stage in self._outputs.items() if stage and not is_set_aside(folder))
        if outputs := sorted(map(str, finished)):
            notes.append(f"outputs of stages are left out: {_first(outputs)}")
        if self._hidden:
            notes.append(f"hidden folders are left out: {self._hidden:,}")
        if self.unread:
            kinds = [f"{count:,} {ending}" for ending, count in self.unread.most_common()]
            notes.append(f"files of other types are left out: {sum(self.unread.values()):,} ({_first(kinds)})")
        return notes


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
