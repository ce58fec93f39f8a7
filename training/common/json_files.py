"""JSON files with a known shape, most of them written by scratch: read whole, and checked against it."""

import json
from pathlib import Path
from typing import Any

Shape = Any


def read_json(path: Path, shape: Shape) -> Any:
    """The content of a JSON file.

    Args:
        shape: see `fits`.

    Raises:
        ValueError: it is damaged: no file, no UTF-8, no JSON, half of a surrogate pair, or of another shape.
        FileNotFoundError: it is missing.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\ud" in text.lower():
        json.dumps(content, ensure_ascii=False).encode()  # UnicodeEncodeError: half of a surrogate pair
    if not fits(content, shape):
        raise ValueError("a key is missing, or of another type")
    return content


def fits(value: Any, shape: Shape) -> bool:
    """Whether a value has a shape.

    Args:
        shape: a type or types, as for `isinstance`; `[shape]` for a list of such; `{str: shape}` for a mapping from any
            keys; or `{"key": shape, "other?": shape}` for one with at least these keys, of which `other` may be absent.
            A truth value is not a number.
    """
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, dict) and str in shape:
        return isinstance(value, dict) and all(fits(item, shape[str]) for item in value.values())
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits_at(key, value, part) for key, part in shape.items())
    types = shape if isinstance(shape, tuple) else (shape,)
    return isinstance(value, types) and (not isinstance(value, bool) or not {bool, object}.isdisjoint(types))


def _fits_at(key: str, value: dict[str, Any], shape: Shape) -> bool:
    name = key.removesuffix("?")
    return fits(value[name], shape) if name in value else key != name
