"""Strategies that damage valid files: edits of their bytes, edits of their structure, another thing in their place.

A mutated valid file gets further into a reader than random bytes do.
"""

import copy
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

# What stands for itself in JSON and YAML, rather than as text.
RAW = (
    *("NaN", "-Infinity", "1e999", "-0", "1" * 5000, "0x1F", "1_000", "12:30:45", "2024-13-01", "2024-12-01", "~"),
    *(
        "[" * 600,
        "[" * 400 + "]" * 400,
        '{"a":' * 2000,
        "&a [*a]",
        "&a {b: *a}",
        "*unknown",
        "!!int x",
        "!!bool x",
        "!!timestamp x",
    ),
    *("!!binary é", "!!set {a, b}", "!!python/object/apply:os.getcwd []", "<<: 3", "? [1]\n: 2", '"\\ud83e"', "|\n  x"),
    "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else 'x'] * 10)}]" for n in range(9)),  # a billion texts
    "[&b0 [x,x,x,x,x,x,x,x,x,x]" + "".join(f", &b{n} [{','.join([f'*b{n - 1}'] * 10)}]" for n in range(1, 9)) + "]",
)
TEXTS = (
    *("", " ", "\0", "a\0b", "\ud83e", "é", "😀\u2028\x85", "a\nb\r\nc", "\ufeff", "\udcff", "x" * 300, "null", "1e5"),
    *("/", ".", "..", "~", "~nobody/x", "*", "[", "a" * 5000, "owner/name", "--x", "-", "{{ x", "{% for %}"),
    *("$x$", "%s {0}", "\x1b[2J"),
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/mem"),
)
PLACES = ("folder", "fifo", "circle", "file")  # made by `put_odd_files` in the current folder
VALUES = (
    *(None, True, False, 0, -1, 1, 2, 255, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *([], {}, [[]], [None], [1, "a"], {"": {}}, {"a": [{}]}, {"a": {"b": {"c": 1}}}, [[[[[[1]]]]]], ["a"] * 100),
    *TEXTS,
    *PLACES,
    *(f"RAW{number}RAW" for number in range(len(RAW))),
)
PIECES = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\xbd", b"\xc3", b"\r", b"\n", b"\n\n", b'"', b"'", b"\\"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\t",
        b"#",
        b"-",
        b"---\n",
        b"%YAML 9.9\n",
        b"null",
        b"\x1f\x8b\x08",
        b"\x00" * 64,
    ),
    *(b"x" * 10_000, b"9" * 30, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "\u2028".encode()),
    *(text.encode() for text in RAW),
)
# Things that are not files of data. A folder as the name of a file; a link to itself; a pipe that nobody writes to.
OTHERS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "fifo": os.mkfifo,
    "circle": lambda path: path.symlink_to(path.name),
    "broken link": lambda path: path.symlink_to("gone"),
    "nothing": lambda path: path.symlink_to("/dev/null"),
    "endless": lambda path: path.symlink_to("/dev/zero"),
}


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def put_odd_files(folder: Path) -> None:
    """The odd things of `PLACES`."""
    for kind in PLACES[:-1]:
        OTHERS[kind](folder / kind)
    (folder / "file").write_bytes(b"\xff\x00some bytes")


@st.composite
def edited_bytes(draw: Any, content: bytes) -> bytes:
    """One to three pieces inserted, overwritten, deleted, repeated, or all from there on cut off."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((1, 2, 8, 100)))
        before, piece, after = content[:start], content[start : start + length], content[start + length :]
        put = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=4))
        content = draw(
            st.sampled_from(
                (before + put + piece + after, before + put + after, before + after, before + piece * 2 + after, before)
            )
        )
    return content


@st.composite
def edited_value(draw: Any, value: Any) -> Any:
    """One to three parts replaced by odd values or by other parts, deleted, renamed, or put into a list or mapping."""
    root = [copy.deepcopy(value)]
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(root))
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        action = draw(st.integers(0, 7))
        if action <= 3:
            holder[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif action == 4 and holder is not root:
            del holder[key]
        elif action == 5 and isinstance(holder, dict):
            holder[draw(st.sampled_from((*TEXTS, None, True, 1, 0.5)))] = holder.pop(key)
        elif action == 6:
            other, name = places[draw(st.integers(0, len(places) - 1))]
            holder[key] = copy.deepcopy(other[name])
        else:
            holder[key] = draw(st.sampled_from(([holder[key]], {"a": holder[key]}, {str(key): holder[key]})))
    return root[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(pairs):
        yield value, key
        yield from _places(part)


def written(value: Any, kind: str) -> bytes:
    """A value as JSON or YAML, with what `RAW` holds in place of its names."""
    if kind == "yaml":
        text = yaml.dump(value, Dumper=_Plain, sort_keys=False)
    else:
        text = json.dumps(value)
    for number in reversed(range(len(RAW))):
        text = text.replace(f'"RAW{number}RAW"', RAW[number]).replace(f"RAW{number}RAW", RAW[number])
    return text.encode("utf-8", "surrogatepass")


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def damaged(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    """Strategy of what a file of this name may hold instead of its valid content."""
    if name.endswith(".gz"):
        inner = damaged(name.removesuffix(".gz"), gzip.decompress(content))
        return edited_bytes(content) | inner.map(gzip.compress) | inner
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in content.splitlines()]
        structure = edited_value(rows).map(
            lambda rows: (
                b"\n".join(written(row, "json") for row in rows) if isinstance(rows, list) else written(rows, "json")
            )
        )
    elif name.endswith((".json", ".ipynb")):
        structure = edited_value(json.loads(content)).map(lambda value: written(value, "json"))
    elif name.endswith(".yaml"):
        structure = edited_value(yaml.safe_load(content)).map(lambda value: written(value, "yaml"))
    elif name.endswith(".safetensors"):
        length = int.from_bytes(content[:8], "little")
        header = edited_value(json.loads(content[8 : 8 + length])).map(lambda value: written(value, "json"))
        structure = header.map(lambda text: len(text).to_bytes(8, "little") + text + content[8 + length :])
    else:
        return edited_bytes(content) | st.sampled_from((b"", b"\xff\xfe" + content))
    return structure | structure | edited_bytes(content)
