"""Records of JSON files: one object per line (.jsonl), or a list of objects (.json)."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.common.errors import UserError


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each record in a JSON file; numbers count lines from 1.

    Raises:
        UserError: not readable, or not objects.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 1
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            if ".jsonl" in path.suffixes:
                records = ((number, json.loads(line)) for number, line in enumerate(stream, 1) if line.strip())
            else:
                content = json.load(stream)
                records = enumerate(content if isinstance(content, list) else [content], 1)
            for number, record in records:
                if not isinstance(record, dict):
                    raise UserError(f"{path}:{number}: a record must be a JSON object, not {record!r:.40}")
                yield number, record
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: after record {number}: not valid JSON ({error.msg})") from None
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise UserError(f"{path}: cannot be read, damaged, or not UTF-8 ({error})") from None
