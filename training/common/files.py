"""Files: written whole or not at all, listed and compared with such a list, checksums, pointers of Git LFS."""

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from training.common.errors import UserError, writing_to

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
HASHED = 100_000  # bytes up to which the content of a listed file is compared, not only its size, so that it is fast
PATIENCE = 2.0  # seconds in which another program closes a file on Windows
EDITABLE = ("README.md", "adapter_config.json")  # which an owner edits before publishing; they only have to exist


@contextlib.contextmanager
def open_whole(path: Path, durable: bool = False, shared: bool = False) -> Iterator[BinaryIO]:
    """A binary stream to a temporary file beside `path`, which replaces it at the end.

    Whenever the process dies, either the old file or the new one exists.

    Args:
        durable: wait until the content has reached the disk, so that this holds for a power cut too.
        shared: several processes may write the same file at once; each then uses another temporary name.
    """
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp" if shared else f"{path.name}.tmp")
    try:
        with beside.open("wb") as stream:
            yield stream
        if durable:
            sync(beside)
        move(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)  # frees the space on a full disk
        raise


def move(source: Path, target: Path) -> None:
    """Rename a file or folder; a file replaces another.

    Windows does not while another program, such as `scratch watch` or a virus scanner, has it open: then wait a little.

    Raises:
        OSError: it cannot be renamed.
    """
    last_try = time.monotonic() + PATIENCE * (sys.platform == "win32")
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if time.monotonic() >= last_try:
                raise
            time.sleep(0.05)


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Write a text file as `open_whole` does."""
    with open_whole(path, durable) as stream:
        stream.write(text.encode("utf-8"))


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, whose files and folders replace those of the same names in it at the end.

    An error or a signal in the `with` block leaves `folder` as it was.

    Raises:
        UserError: `folder` cannot be written.
    """
    beside = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    with writing_to(folder):
        beside.mkdir(parents=True)
    try:
        yield beside
        with writing_to(folder):
            folder.mkdir(exist_ok=True)
            for path in sorted(beside.iterdir()):
                target = folder / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                move(path, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, have reached the disk."""
    windows = sys.platform == "win32"  # which writes the entries of folders automatically, and only syncs for a writer
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Damage:
    """Differences between the files of a folder and a list of them. False if there are none.

    Attributes:
        missing: names.
        changed: names, and what `list_files` would note now.
    """

    missing: list[str]
    changed: dict[str, int | str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed)

    def __str__(self) -> str:
        states = {"missing": self.missing, "changed": list(self.changed)}
        return ", ".join(
            f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''} {state}"
            for state, names in states.items()
            if names
        )


def list_files(folder: Path, left_out: Collection[str]) -> dict[str, int | str]:
    """The files of a folder by their relative names: the SHA-256 of a small one, the size in bytes of others.

    Args:
        left_out: names of files and folders directly in `folder`.
    """
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return {name.as_posix(): _identify(folder / name) for name in names if name.parts[0] not in left_out}


def files_below(folder: Path, most: int) -> list[Path]:
    """The files of a folder and its subfolders, sorted. Links to folders are followed, but no folder is read twice.

    Args:
        most: number of files after which the search ends, with those found so far.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names if os.path.isfile(os.path.join(place, name))]
        if len(found) > most:
            break
    return sorted(found)


def find_damage(folder: Path, listed: dict[str, int | str]) -> Damage:
    """The files that are missing, or not as they were when `list_files` listed them. Others do not matter."""
    missing = [name for name in listed if not (folder / name).is_file()]
    compared = [name for name in listed if name not in missing and not name.endswith(EDITABLE)]
    now = {name: _identify(folder / name) for name in compared}
    return Damage(missing, {name: identity for name, identity in now.items() if identity != listed[name]})


def follow_umask(folder: Path) -> None:
    """Give all files of a folder the permissions of a new file: some libraries write for the user alone.

    Files of other users, and those on a file system without permissions, stay as they are.
    """
    umask = os.umask(0)
    os.umask(umask)
    mode = 0o666 & ~umask
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            with contextlib.suppress(OSError):
                path.chmod(mode)


def _identify(file: Path) -> int | str:
    size = file.stat().st_size
    return size if size > HASHED else sha256(file)


def check_file(path: Path, key: str = "") -> None:
    """Reject what is not a file: nothing, a folder, a pipe or a device, which might be read without end.

    Args:
        key: of the recipe that names the file, for errors.

    Raises:
        UserError: what it is.
    """
    if not path.is_file():
        where = f"'{key}': {path}" if key else path
        raise UserError(f"{where}: not a file" if path.exists() else f"{where}: no such file")


def reject_lfs_pointer(path: Path) -> None:
    """Reject a Git LFS pointer, which a clone without Git LFS holds in place of a large file.

    Raises:
        UserError: the file is such a pointer.
    """
    with path.open("rb") as stream:
        head = stream.read(256)
    if head.startswith(_LFS_POINTER) and b"\noid sha256:" in head:
        raise UserError(f"{path} is a Git LFS pointer, not the data; run `git lfs pull` in its repository")
