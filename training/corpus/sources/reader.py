"""Reader of one source: a stream of documents in a fixed order, counted, and resumable at any document."""

import copy
import itertools
import lzma
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm import tqdm

from training.common.errors import UserError
from training.corpus.sources import files, records, tables, text
from training.corpus.sources.config import PYTHON, STDIN, SourceConfig
from training.corpus.sources.document import BROKEN, Damaged, Document, Dropped, NoColumn, NotText, Record, from_row
from training.corpus.sources.files import SourceFile, announced_files, is_local
from training.corpus.sources.hub import HubStream
from training.corpus.sources.ordering import shuffle_key
from training.corpus.sources.partitions import Partition, whole
from training.corpus.sources.python import path_reason, python_files, read_python
from training.stages.recipe import nearest

SHOWN = 5  # dropped records that are shown of each reason; more are only counted
_REMEDIES = {
    "undecodable": " ({size:,} bytes of text); name the encoding in '{key}.encoding', or set '{key}.invalid_bytes' to "
    "replace",
    "binary": " ({size:,} bytes); delete what is not text, or replace NULs with '{key}.invalid_bytes'",
    "too large": "; raise '{key}.max_document_bytes' to read it",
}
FEW_BROKEN = 10  # up to this many never stop a run early: with so few records a share is not meaningful

_READERS: dict[str, Callable[[SourceFile, SourceConfig, int], Iterator[Record | Dropped]]] = {
    **dict.fromkeys(files.TEXT, text.read_text),
    **dict.fromkeys(files.HTML, text.read_html),
    **dict.fromkeys(files.JSON_LINES, records.read_json_lines),
    **dict.fromkeys(files.CSV, records.read_csv),
    **dict.fromkeys(files.PARQUET, tables.read_parquet),
    **dict.fromkeys(files.ARROW, tables.read_arrow),
}


class Counts(Protocol):
    def drop(self, reason: str, size: int) -> None: ...


@dataclass
class Position:
    """The position up to which a source was read. `dataclasses.asdict` gives JSON, `Position(**...)` takes it.

    Attributes:
        last: id of the last document that was read.
        records, broken, damaged: records that were met, the broken ones among them, and files that end in damage.
        first_broken: the fault of the first broken record, and its place.
        encodings: numbers of documents by encoding, other than UTF-8.
        stream: state of a Hub dataset's stream.
    """

    last: str | None = None
    records: int = 0
    broken: int = 0
    damaged: int = 0
    first_broken: str | None = None
    encodings: dict[str, int] = field(default_factory=dict)
    stream: dict[str, Any] | None = None


class SourceReader:
    """An iterator over the documents of a source.

    Records that give no document are counted in the funnel by a reason: "empty", "too large", "binary",
    "undecodable", "broken record", "damaged file", "same file twice". Memory is bounded by `max_document_bytes` times
    a small number, whatever the size of the source.

    Args:
        name: prefix of the ids and groups of its documents, so that they differ from those of other sources.
        start: position to resume from. The documents and counts are those that a reading from the beginning gives after
            it; whole files, row groups and shards of a Hub dataset before it are not read again.
        key: recipe key of the source, for error messages.
        partition: read this partition of the source alone. `check_partitions` then compares the broken records of the
            whole source with `max_broken`, when all partitions have been read.
        seed: of the order of installed Python files; all other sources keep their own order.
        groups: whether to read the documents of a group; all of them by default. Others are not counted.

    Raises:
        UserError: during iteration: nothing to read, no such column, a file that vanished or may not be read, more
            broken records or damaged files than `max_broken`, a connection that failed repeatedly.
    """

    def __init__(
        self,
        config: SourceConfig,
        name: str,
        funnel: Counts,
        start: Position = Position(),
        key: str = "data",
        partition: Partition | None = None,
        seed: int = 0,
        groups: Callable[[str], bool] | None = None,
    ):
        self.config, self.name, self.funnel, self.key = config, name, funnel, key
        self.partition, self.seed, self.groups = partition, seed, groups
        self._at = copy.deepcopy(start)
        self._shown = Counter({BROKEN: start.broken})  # records dropped for a reason, and shown if they are few
        self._prefix = f"{name}/" if name else ""
        self._stream: HubStream | None = None
        self._documents = self._read(start)

    @property
    def position(self) -> Position:
        """The position after the last document given."""
        if self._stream:
            self._at.stream = self._stream.state
        return copy.deepcopy(self._at)

    def __iter__(self) -> Iterator[Document]:
        return self

    def __next__(self) -> Document:
        return next(self._documents)

    def _read(self, start: Position) -> Iterator[Document]:
        last = start.last.removeprefix(self._prefix) if start.last is not None else None
        if self.config.path == PYTHON:
            documents = self._read_python(last)
        elif self.config.path == STDIN:
            documents = self._read_files([_standard_input()], last, 1)
        elif is_local(self.config.path):
            partition = self.partition or whole(announced_files(self.config, self.key))
            documents = self._read_files(partition.files, last, partition.of)
        else:
            documents = self._read_hub(start)
        yield from documents
        if not self.partition:
            self._check_broken()

    def _read_python(self, last: str | None) -> Iterator[Document]:
        # Shuffled, so that a limit keeps files of many packages, not those first in the alphabet.
        found = sorted(python_files(), key=lambda file: (shuffle_key(self.seed, file.id), file.id))
        for file in itertools.islice(found, self._after([file.id for file in found], last), None):
            if not self._reads(file.group):
                continue
            if reason := path_reason(file.id):
                outcome = Dropped(None, reason, file.size)
            elif file.size > self.config.max_document_bytes:
                outcome = Dropped(None, "too large", file.size)
            else:
                try:
                    source = read_python(file.path)
                except OSError as error:
                    raise self._unreadable(file.path, error) from None
                outcome = Dropped(None, "undecodable", file.size) if source is None else Record(None, source)
            yield from self._outcome(file.id, file.group, outcome, file.path)

    def _read_files(self, found: Sequence[SourceFile], last: str | None, of: int) -> Iterator[Document]:
        names = [file.name for file in found]
        skip = 0
        if last is not None and last not in names:  # it is one of several in its file
            last, _, number = last.rpartition(":")
            skip = int(number) if number.isdecimal() else 0
        first = self._after(names, last) - (1 if skip else 0)
        for file in itertools.islice(found, first, None):
            if not self._reads(file.group):
                continue
            if file.same_as:
                tqdm.write(f"{file}: the same file as {file.same_as}, read once", file=sys.stderr)
            for outcome in self._checked(file, skip, of):
                number = outcome.number
                identity = file.name if number is None else f"{file.name}:{number}"
                yield from self._outcome(identity, file.group, outcome, file)
            skip = 0

    def _reads(self, group: str) -> bool:
        return self.groups is None or self.groups(self._prefix + group)

    def _checked(self, file: SourceFile, skip: int, count: int) -> Iterator[Record | Dropped]:
        """Records of a file. Damage ends the file, and ends the run unless it is one file of many."""
        try:
            size = file.path.stat().st_size if file.path else None
            if file.same_as:
                yield Dropped(None, "same file twice", size)
            elif size == 0:
                yield Dropped(None, "empty", 0)
            else:
                yield from _READERS[file.kind](file, self.config, skip)
        except NoColumn as error:
            column = self.config.text_column
            raise UserError(
                f"'{self.key}.text_column': {file} has no column '{column}'; {nearest(column, error.names)}"
            ) from None
        except NotText as error:
            column = self.config.text_column
            raise UserError(f"'{self.key}.text_column': {file}: '{column}' holds {error}, not text") from None
        except (Damaged, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
            yield self._damage(file, str(error), count)
        except OSError as error:
            if error.errno is not None:
                raise self._unreadable(file, error) from None
            yield self._damage(file, str(error), count)  # as gzip, bz2 and zstd report broken data

    def _damage(self, file: SourceFile, why: str, count: int) -> Dropped:
        self._at.damaged += 1
        damage = f"{file}: damaged ({why.splitlines()[0] if why else 'it ends early'})"
        if self._at.damaged > self.config.max_broken * count:
            raise UserError(
                f"{damage}; download it again, remove it, or skip the unreadable rest of such files with a "
                f"'{self.key}.max_broken' of {self._at.damaged / count:.3g} or more"
            )
        tqdm.write(f"{damage}; the rest of it is skipped", file=sys.stderr)
        return Dropped(None, "damaged file", file.path.stat().st_size if file.path else 0)

    def _unreadable(self, file: object, error: OSError) -> UserError:
        if isinstance(error, FileNotFoundError):
            return UserError(f"'{self.key}.path': {file} was deleted after the files were listed; rerun the command")
        return UserError(f"'{self.key}.path': {file} cannot be read ({error.strerror})")

    def _read_hub(self, start: Position) -> Iterator[Document]:
        path = self.config.path
        number = int(start.last.rpartition(":")[2]) if start.last else 0
        self._stream = HubStream(self.config, self.key, number, start.stream)
        column = self.config.text_column
        for number, row in self._stream:
            try:
                outcome = from_row(number, row, self.config, first=number == 1)
            except NoColumn as error:
                raise UserError(
                    f"'{self.key}.text_column': {path} has no column '{column}'; {nearest(column, error.names)}"
                ) from None
            yield from self._outcome(f"{path}:{number}", path, outcome, path)

    def _outcome(self, identity: str, group: str, outcome: Record | Dropped, where: object) -> Iterator[Document]:
        """The document of a record; or none, and a count in the funnel."""
        if not self._reads(group):
            return
        if isinstance(outcome, Dropped):
            self._drop(outcome, where)
            return
        document = Document(self._prefix + identity, self._prefix + group, outcome.text)
        if not outcome.text or outcome.text.isspace():
            self._drop(Dropped(outcome.number, "empty", document.size))
        else:
            at = self._at
            at.last = document.id
            at.records += 1
            if outcome.encoding != "utf-8":
                at.encodings[outcome.encoding] = at.encodings.get(outcome.encoding, 0) + 1
            yield document

    def _drop(self, outcome: Dropped, where: object = None) -> None:
        self.funnel.drop(outcome.reason, outcome.size)
        self._at.records += 1
        if outcome.detail is None:
            return
        fault = f"{where}:{outcome.number}: {outcome.detail}" if outcome.number else f"{where}: {outcome.detail}"
        if outcome.reason == BROKEN:
            self._at.broken += 1
            self._at.first_broken = self._at.first_broken or fault
            if self._at.broken > FEW_BROKEN or not self.config.max_broken:
                self._check_broken()
        self._shown[outcome.reason] += 1
        if self._shown[outcome.reason] <= SHOWN:
            remedy = _REMEDIES.get(outcome.reason, "").format(key=self.key, size=outcome.size)
            more = "; further ones are only counted" if self._shown[outcome.reason] == SHOWN else ""
            tqdm.write(f"skipped: {fault}{remedy}{more}", file=sys.stderr)

    def _check_broken(self) -> None:
        _check_share(self._at.broken, self._at.records, self._at.first_broken, self.config, self.key)

    def _after(self, names: list[str], last: str | None) -> int:
        """The index after the last name that was read."""
        if last is None:
            return 0
        try:
            return names.index(last) + 1
        except ValueError:
            raise UserError(
                f"'{self.key}.path': {self.config.path}: {last}, where reading stopped, is missing; "
                "start over with --restart"
            ) from None


def check_partitions(positions: Sequence[Position], files: int, config: SourceConfig, key: str) -> None:
    """Check that not too much of a source is broken, over all its partitions.

    Args:
        positions: the last position of each partition.
        files: number of files of the source.

    Raises:
        UserError: more broken records, or damaged files, than `max_broken`.
    """
    broken, records = sum(position.broken for position in positions), sum(position.records for position in positions)
    first = next((position.first_broken for position in positions if position.first_broken), None)
    _check_share(broken, records, first, config, key)
    damaged = sum(position.damaged for position in positions)
    if damaged > config.max_broken * files:
        raise UserError(
            f"'{key}.path': {damaged:,} of {files:,} files are damaged; download them again, remove them, or skip "
            f"their unreadable rest with a '{key}.max_broken' of {damaged / files:.3g} or more"
        )


def _check_share(broken: int, records: int, first: str | None, config: SourceConfig, key: str) -> None:
    if broken > config.max_broken * records:
        raise UserError(
            f"'{key}.max_broken': {broken:,} of {records:,} records are broken, more than {config.max_broken:.2%}; "
            f"such as {first}"
        )


def _standard_input() -> SourceFile:
    """Records of standard input: JSON lines if it begins with a brace, or a list of them; else text."""
    head = sys.stdin.buffer.peek(1).lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")  # byte-order marks, whitespace
    return SourceFile(None, "stdin", "stdin", ".jsonl" if re.match(rb"(\[\s*)?\{|\[\s*\]\s*\Z", head) else ".txt", "")
