"""Where documents come from: installed Python source, local files, the Hub."""

import glob
import gzip
import json
import re
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training.data.filters import Funnel
from training.errors import UserError
from training.recipe import nearest

TEXT_SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".jsonl.gz", ".parquet")

# Files that installers and administrators write into site-packages: they name folders of this machine, not code.
_LOCAL_MODULES = ("__editable__", "_sysconfigdata", "sitecustomize", "usercustomize")

# The separator of .txt files that hold many documents, as TinyStories is published.
_SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True)
class Document:
    """One text, the same on every machine that reads the same source.

    Attributes:
        id: its name within the corpus.
        group: what it was published with, such as its package; the unit of a split without leaks.
    """

    id: str
    group: str
    text: str

    @cached_property
    def size(self) -> int:
        """Bytes of the text as UTF-8."""
        return len(self.text.encode())


@dataclass(frozen=True)
class PythonFile:
    """A file of the standard library or of an installed package, not read yet."""

    id: str
    group: str
    path: Path
    size: int


def python_files() -> list[PythonFile]:
    """Python files of the running interpreter's standard library and site-packages; never the working directory."""
    roots = [("stdlib", Path(sysconfig.get_path("stdlib")))]
    site_packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    roots += [("site", Path(folder)) for folder in sorted(site_packages)]
    files = []
    for kind, root in roots:
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).parts
            # A system Python keeps its site-packages inside the standard library's folder.
            if parts[0] in ("site-packages", "dist-packages") or parts[0].startswith(_LOCAL_MODULES):
                continue
            package = parts[0].removesuffix(".py")
            files.append(
                PythonFile(
                    id="/".join((kind, *parts)),
                    group=f"stdlib:{package}" if kind == "stdlib" else package,
                    path=path,
                    size=path.stat().st_size,
                )
            )
    return files


def read_python(path: Path) -> str | None:
    """A source file in the encoding it declares (PEP 263), with newlines as `\\n`; None if it does not decode."""
    try:
        with tokenize.open(path) as stream:
            return stream.read()
    except (SyntaxError, UnicodeError):
        return None


def is_hub_id(path: str) -> bool:
    """Whether a path that is not on disk reads as a Hub dataset: exactly `owner/name`, no file ending."""
    looks_like = re.fullmatch(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*", path, re.ASCII)
    return bool(looks_like) and not path.endswith(TEXT_SUFFIXES) and not Path(path).exists()


def text_files(path: str) -> list[Path]:
    """The readable files that a file name, folder or glob stands for, sorted.

    Raises:
        UserError: there are none.
    """
    expanded = Path(path).expanduser()
    if expanded.is_file():
        if not expanded.name.endswith(TEXT_SUFFIXES):
            raise UserError(f"'data.path': {path}: unknown kind of file; readable are {' '.join(TEXT_SUFFIXES)}")
        return [expanded]
    if expanded.is_dir():
        found = expanded.rglob("*")
    elif glob.has_magic(path):
        found = (Path(name) for name in glob.glob(str(expanded), recursive=True))
    else:
        raise UserError(f"'data.path': no such file or folder: {path} (a Hub dataset is written owner/name)")
    files = sorted(file for file in found if file.is_file() and file.name.endswith(TEXT_SUFFIXES))
    if not files:
        raise UserError(f"'data.path': {path}: no file with an ending of {' '.join(TEXT_SUFFIXES)}")
    return files


def text_documents(path: str, column: str, subset: str | None, split: str, funnel: Funnel) -> Iterator[Document]:
    """Documents of local files or of a Hub dataset, in order. A file that is not UTF-8 is counted in the funnel.

    Raises:
        UserError: no such file or dataset, a broken record, or no such column.
    """
    if is_hub_id(path):
        yield from _hub_documents(path, column, subset, split)
        return
    files = text_files(path)
    base = Path(path).expanduser()
    for file in files:
        name = file.relative_to(base).as_posix() if base.is_dir() else file.name
        # Below a folder, its subfolders are the groups; files that lie loose are each their own.
        group = name.split("/")[0]
        if file.name.endswith(".parquet"):
            texts = _column(_parquet_rows(file, column), column, str(file))
        elif file.name.endswith((".jsonl", ".jsonl.gz")):
            texts = _column(_json_rows(file), column, str(file))
        else:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                funnel.drop("undecodable", file.stat().st_size)
                continue
            if file.suffix != ".txt" or _SEPARATOR not in text:
                yield Document(name, group, text)
                continue
            texts = text.split(_SEPARATOR)
        for number, text in enumerate(texts, start=1):
            yield Document(f"{name}:{number}", group, text)


def _json_rows(file: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UserError(f"{file}:{number}: a record is an object with columns, not a {type(row).__name__}")
                yield row
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{number}: not valid JSON ({error.msg})") from None
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{file}: damaged, or not UTF-8 ({error})") from None


def _parquet_rows(file: Path, column: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid:
        raise UserError(f"{file}: not a parquet file, or damaged") from None
    names = table.schema_arrow.names
    if column not in names:
        raise UserError(f"'data.text_column': {file} has no column '{column}'; {nearest(column, names)}")
    for batch in table.iter_batches(columns=[column]):
        yield from batch.to_pylist()


def _hub_documents(path: str, column: str, subset: str | None, split: str) -> Iterator[Document]:
    import datasets

    try:
        # Streamed, so that a limit on the bytes reads no more than it needs of a corpus that may be terabytes.
        rows = datasets.load_dataset(path, name=subset, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"'data.path': Hub dataset {path} cannot be read: {reason}") from None
    for number, text in enumerate(_column(rows, column, path), start=1):
        yield Document(f"{path}:{number}", path, text)


def _column(rows: Iterable[dict[str, Any]], column: str, where: str) -> Iterator[str]:
    """The text of each row; null counts as empty."""
    for number, row in enumerate(rows, start=1):
        if column not in row:
            raise UserError(f"'data.text_column': {where}:{number} has no column '{column}'; {nearest(column, row)}")
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise UserError(f"'data.text_column': {where}:{number}: '{column}' holds {type(text).__name__}, not text")
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:  # JSON can spell them out, as in "\\ud83e"
            half = ord(text[error.start])
            raise UserError(
                f"'data.text_column': {where}:{number}: '{column}' holds half of a surrogate pair (U+{half:04X}), "
                "which has no UTF-8; mend the record or leave it out"
            ) from None
        yield text or ""
