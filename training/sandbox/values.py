"""Messages of plain values between processes that do not trust each other.

Messages are JSON, from which only the plain types below are built. With pickle or marshal the sender could run code in
the receiver, or crash it. An object with a custom `__eq__` cannot be sent.
"""

import json
import marshal
import os
import struct
from typing import Any

LENGTH = struct.Struct("=I")
PLAIN = "None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range"


def encode(value: Any) -> Any:
    """A plain value as JSON data; subclasses (Counter, namedtuple, IntEnum) become their plain type.

    Raises:
        TypeError: the value is not plain.
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
    raise TypeError(f"a {type(value).__name__} cannot be sent; plain values are {PLAIN}")


def decode(data: Any) -> Any:
    """The plain value of JSON data.

    Raises:
        ValueError: the data did not come from `encode`.
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
    """Write a message: its length in 4 bytes, then JSON."""
    _write(descriptor, json.dumps(message).encode())


def read_message(descriptor: int) -> Any:
    """Read a message that `write_message` wrote.

    Raises:
        EOFError: the other side closed, before the message or in its middle.
        ValueError: not JSON.
    """
    return json.loads(_read(descriptor))


def write_request(descriptor: int, *texts: str) -> None:
    """Write the texts that a process needs for its program. Its reader must trust the writer."""
    _write(descriptor, marshal.dumps(texts))


def read_request(descriptor: int) -> tuple[str, ...]:
    """Read what `write_request` wrote.

    Raises:
        EOFError: the other side closed.
    """
    return marshal.loads(_read(descriptor))


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(LENGTH.pack(len(data)) + data)
    while left:
        left = left[os.write(descriptor, left) :]


def _read(descriptor: int) -> bytes:
    """A message without its length."""
    (length,) = LENGTH.unpack(_read_exactly(descriptor, LENGTH.size))
    return _read_exactly(descriptor, length)


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        parts.append(os.read(descriptor, min(size, 1 << 20)))
        if not parts[-1]:
            raise EOFError
        size -= len(parts[-1])
    return b"".join(parts)
