"""The files of a finished output: listed when it is complete, compared before it is used, with the umask's permissions.

A check reads sizes only, and the content of small files, so that it takes milliseconds whatever the size of the output.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from training.common.files import sha256

HASHED = 100_000  # bytes up to which the content of a file is compared, not only its size
EDITABLE = ("README.md", "adapter_config.json")  # which an owner edits before publishing; they only have to exist


@dataclass(frozen=True)
class Damage:
    """Changes to the files of an output since it was complete. False if there are none.

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


def find_damage(folder: Path, listed: dict[str, int | str]) -> Damage:
    """The files that are missing, or not as they were when `list_files` listed them. Others do not matter."""
    missing = [name for name in listed if not (folder / name).is_file()]
    compared = [name for name in listed if name not in missing and not name.endswith(EDITABLE)]
    now = {name: _identify(folder / name) for name in compared}
    return Damage(missing, {name: identity for name, identity in now.items() if identity != listed[name]})


def follow_umask(folder: Path) -> None:
    """Give all files of a folder the permissions of a new file: some libraries write for the user alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~umask)


def _identify(file: Path) -> int | str:
    size = file.stat().st_size
    return size if size > HASHED else sha256(file)
