"""Records of JSON files: one object per line (.jsonl), or a list of objects (.json)."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from training.common.errors import UserError
from training.common.files import GZIP, check_file, reject_lfs_pointer

_LIMITS = "a number too long, or nested too deeply"
_HEAD = 1000  # bytes or characters: more than a Git LFS pointer, or the blanks before a list


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each record in a JSON file, with or without gzip and byte-order mark.

    Numbers count lines from 1; in a list, whatever the file is called, they count its elements.

    Raises:
        UserError: not readable, or not objects.
    """
    check_file(path)
    try:
        with path.open("rb") as stored:
            head = stored.read(_HEAD)
        reject_lfs_pointer(path, head)
        opener = gzip.open if head.startswith(GZIP) or path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as stream:
            for number, record in _values(path, stream):
                if not isinstance(record, dict):
                    raise UserError(f"{path}:{number}: a record must be a JSON object, not {record!r:.40}")
                yield number, record
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read, damaged, or not UTF-8 ({error})") from None


def _values(path: Path, stream: TextIO) -> Iterator[tuple[int, Any]]:
    is_list = re.match(r"\s*\[\s*[{\]]", stream.read(_HEAD))
    stream.seek(0)
    if is_list or ".jsonl" not in path.suffixes:
        try:
            content = json.load(stream)
        except json.JSONDecodeError as error:
            if is_list or error.msg != "Extra data":
                raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
            stream.seek(0)  # lines in a file called .json
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError):
            raise UserError(f"{path}: not valid JSON ({_LIMITS})") from None
        else:
            yield from enumerate(content if isinstance(content, list) else [content], 1)
            return
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not valid JSON ({error.msg})") from None
            except (ValueError, RecursionError):
                raise UserError(f"{path}:{number}: not valid JSON ({_LIMITS})") from None
            yield number, value
