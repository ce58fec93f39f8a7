"""A reader of files, and how to write the files for it."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        make: writes valid files into the current folder.
        files: of these, those to damage.
        read: reads them.
        slow: gets only one case of so many.
    """

    make: Callable[[], object]
    files: tuple[str, ...]
    read: Callable[[], object]
    slow: int = 1


def put(file: str, content: Any) -> None:
    """Write records, a value, text or bytes, as the name of the file says."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.endswith(".gz") and not isinstance(content, bytes):
        put(file.removesuffix(".gz"), content)
        content = gzip.compress(Path(file.removesuffix(".gz")).read_bytes())
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    elif file.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content, indent=1))


def putting(files: dict[str, Any]) -> Callable[[], None]:
    return lambda: [put(file, content) for file, content in files.items()] and None
