"""Files: written completely or not at all, checksums, flushing to the disk, and pointers of Git LFS."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from training.common.errors import UserError

GZIP = b"\x1f\x8b\x08"  # the first bytes of a gzip file, whatever its name
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def open_whole(path: Path, durable: bool = False, shared: bool = False) -> Iterator[BinaryIO]:
    """A binary stream to a temporary file beside `path`, which replaces it at the end.

    Whenever the process dies, either the old file or the new one exists.

    Args:
        durable: wait until the content has reached the disk, so that this holds for a power cut too.
        shared: several processes may write the same file at once; each then uses another temporary name.
    """
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp" if shared else f"{path.name}.tmp")
    with beside.open("wb") as stream:
        yield stream
    if durable:
        sync(beside)
    beside.replace(path)


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Write a text file as `open_whole` does."""
    with open_whole(path, durable) as stream:
        stream.write(text.encode("utf-8"))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reject_lfs_pointer(path: Path, head: bytes) -> None:
    """Reject a Git LFS pointer, which a clone without Git LFS holds in place of a large file.

    Args:
        head: the first bytes of the file.

    Raises:
        UserError: the file is such a pointer.
    """
    if head.startswith(_LFS_POINTER) and b"\noid sha256:" in head:
        raise UserError(f"{path} is a Git LFS pointer, not the data; run `git lfs pull` in its repository")
