"""Plain values as bytes, between processes that do not trust each other.

Not pickle and not marshal, which let the sender run code in, or crash, the receiver: what arrives is JSON, and what is
made of it are the plain types below and nothing else. An object with an `__eq__` of its own does not arrive as one.
"""

import json
import os
import struct
from typing import Any

PLAIN = "None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range"


def encode(value: Any) -> Any:
    """What JSON can hold of a plain value; subclasses (Counter, namedtuple, IntEnum) become their plain type.

    Raises:
        TypeError: not plain.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return {"int": hex(int.__index__(value))}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [hex(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in dict.items(value)]}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item) for item in kind.__iter__(value)]}
    raise TypeError(f"a {type(value).__name__} cannot be handed over; plain values can: {PLAIN}")


def decode(data: Any) -> Any:
    """The plain value.

    Raises:
        ValueError: not what `encode` makes.
    """
    if data is None or data is True or data is False or type(data) is str:
        return data
    if type(data) is not dict or len(data) != 1:
        raise ValueError("not a plain value")
    (kind, content), *_ = data.items()
    try:
        return DECODERS[kind](content)
    except (KeyError, TypeError, AttributeError):
        raise ValueError("not a plain value") from None


DECODERS = {
    "int": lambda digits: int(digits, 16),
    "float": float.fromhex,
    "complex": lambda parts: complex(*map(float.fromhex, parts)),
    "bytes": bytes.fromhex,
    "range": lambda parts: range(*(int(part, 16) for part in parts)),
    "dict": lambda pairs: {decode(key): decode(item) for key, item in pairs},
    "list": lambda items: [decode(item) for item in items],
    "tuple": lambda items: tuple(decode(item) for item in items),
    "set": lambda items: {decode(item) for item in items},
    "frozenset": lambda items: frozenset(decode(item) for item in items),
}


def write_message(descriptor: int, message: Any) -> None:
    """JSON, after its length in 4 bytes."""
    data = json.dumps(message).encode()
    data = memoryview(struct.pack("=I", len(data)) + data)
    while data:
        data = data[os.write(descriptor, data) :]


def read_message(descriptor: int) -> Any:
    """What `write_message` wrote.

    Raises:
        EOFError: the other side closed in the middle, or before.
        ValueError: not JSON.
    """
    (length,) = struct.unpack("=I", _read(descriptor, 4))
    return json.loads(_read(descriptor, length))


def _read(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        parts.append(os.read(descriptor, min(size, 1 << 20)))
        if not parts[-1]:
            raise EOFError
        size -= len(parts[-1])
    return b"".join(parts)
