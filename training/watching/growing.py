"""Files of JSON lines that another process appends to, replaces or cuts: each read gives what is new."""

import json
import math
from pathlib import Path
from typing import Any

_COMPARED = 256  # bytes before the place reached, by which a file that was replaced is noticed


class GrowingFile:
    """A reader of a file of JSON lines that knows how far it has read.

    The file may not be there yet, its last line may be half written, and its folder may get another name. A resumed run
    replaces it by one with fewer lines.
    """

    def __init__(self):
        self._reached, self._before = 0, b""

    def read(self, file: Path) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the file is another than at the last call, and its new records: then all that it has.

        Lines that are not a mapping in JSON are left out.
        """
        try:
            if not file.is_file():  # a pipe or a device would never end
                return False, []
            with file.open("rb") as stream:
                stream.seek(self._reached - len(self._before))
                replaced = stream.read(len(self._before)) != self._before
                if replaced:
                    self._reached, self._before = 0, b""
                stream.seek(self._reached)
                added = stream.read()
        except OSError:  # not there yet, or between two names
            return False, []
        added = added[: added.rfind(b"\n") + 1]
        self._reached += len(added)
        self._before = (self._before + added)[-_COMPARED:]
        return replaced, [record for line in added.splitlines() if (record := _parse(line)) is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def number(record: dict[str, Any], key: str) -> float | None:
    """The finite number of a key; None if there is none."""
    value = record.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None
