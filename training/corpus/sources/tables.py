"""Columnar files: Parquet, Arrow and Feather. Rows are numbered from 1."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.common.files import reject_lfs_pointer
from training.corpus.sources.config import SourceConfig
from training.corpus.sources.document import Damaged, Dropped, NoColumn, NotText, Record, from_row
from training.corpus.sources.files import SourceFile

# Rows become Python objects in batches of about this many bytes.
BATCH_BYTES = 8_000_000
MAX_BATCH = 1024


def read_parquet(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """The rows of one column, page by page. Row groups before `skip` are skipped unread.

    Raises:
        NoColumn, NotText: by the file's schema.
        Damaged: it is not Parquet, or some of it is broken.
    """
    import pyarrow.parquet

    reject_lfs_pointer(file.path)
    with _damage_named("not a Parquet file, or damaged"):
        # Makes pyarrow read pages as needed, not whole columns of a row group at once.
        table = pyarrow.parquet.ParquetFile(file.path, buffer_size=1 << 20, pre_buffer=False)
    with table:
        name = _text_path(table.schema_arrow, config.text_column)
        number, groups = 0, []
        for index in range(table.num_row_groups):
            group = table.metadata.row_group(index)
            if not groups and number + group.num_rows <= skip:
                number += group.num_rows
            else:
                groups.append(index)
        if not groups:
            return
        largest = max(_row_bytes(table.metadata.row_group(index)) for index in groups)
        rows = max(1, min(MAX_BATCH, int(BATCH_BYTES / largest)))
        with _damage_named("damaged"):
            for batch in table.iter_batches(batch_size=rows, row_groups=groups, columns=[name]):
                passed = min(max(skip - number, 0), len(batch))
                for offset, row in enumerate(batch.slice(passed).to_pylist(), start=number + passed + 1):
                    yield from_row(offset, row, config)
                number += len(batch)


def read_arrow(file: SourceFile, config: SourceConfig, skip: int) -> Iterator[Record | Dropped]:
    """The rows of one column of an Arrow file or stream (also Feather, and what `datasets` writes), mapped into memory.

    Raises:
        NoColumn, NotText: by the file's schema.
        Damaged: it is not Arrow, or some of it is broken.
    """
    import pyarrow

    reject_lfs_pointer(file.path)
    with pyarrow.memory_map(str(file.path)) as mapped, _damage_named("not an Arrow file, or damaged"):
        if mapped.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(mapped)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            mapped.seek(0)
            reader = batches = pyarrow.ipc.open_stream(mapped)
        column = _text_path(reader.schema, config.text_column).split(".")[0]
        number = 0
        for batch in batches:
            passed = min(max(skip - number, 0), len(batch))
            wanted = batch.select([column])
            # pyarrow trusts the offsets in a file: wrong ones would end the process with a segmentation fault.
            wanted.slice(passed).validate(full=True)
            rows = max(1, min(MAX_BATCH, int(BATCH_BYTES / (wanted.nbytes / max(len(batch), 1) + 1))))
            for begin in range(passed, len(batch), rows):
                for offset, row in enumerate(wanted.slice(begin, rows).to_pylist(), start=number + begin + 1):
                    yield from_row(offset, row, config)
            number += len(batch)


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """All columns of each row of a Parquet file. Raises `Damaged`."""
    import pyarrow.parquet

    reject_lfs_pointer(path)
    with _damage_named("not a Parquet file, or damaged"), pyarrow.parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=MAX_BATCH):
            yield from batch.to_pylist()


def _text_path(schema, column: str) -> str:
    """The column, checked against the schema."""
    import pyarrow

    def leaves(fields, prefix: str) -> Iterator[tuple[str, pyarrow.DataType]]:
        for field in fields:
            yield prefix + field.name, field.type
            if pyarrow.types.is_struct(field.type):
                yield from leaves(field.type, f"{prefix}{field.name}.")

    types = dict(leaves(schema, ""))
    if column not in types:
        raise NoColumn(list(types))
    kind = types[column]
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    if not (any(test(kind) for test in tests) or pyarrow.types.is_null(kind)):
        raise NotText(str(kind))
    return column


def _row_bytes(group) -> float:
    return group.total_byte_size / max(group.num_rows, 1) + 1


@contextlib.contextmanager
def _damage_named(what: str) -> Iterator[None]:
    """Raise pyarrow's errors about contents as `Damaged`; operating-system errors, which have an errno, stay."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException:
        raise Damaged(what) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise Damaged(what) from None
