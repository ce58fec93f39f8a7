"""Token shards on disk, in the layout of datatrove's `DocumentTokenizer`, which its tools and nanotron read.

    train-00000.ds            the tokens of all documents, little-endian uint16 (uint32 for a vocabulary over 65536)
    train-00000.ds.index      uint64: where each document ends, in tokens from the start of the shard
    train-00000.ds.metadata   text: tokenizer and bytes per token, number of tokens, the same in readable form

Every document ends with the end-of-text token. `manifest.json` beside them holds the counts and hashes.
"""

import json
import shutil
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.common.errors import UserError
from training.common.files import sha256
from training.common.json_files import read_json
from training.common.progress import progress_bar

MANIFEST = "manifest.json"
_SPLIT = {"file": str, "tokens": int, "documents": int, "bytes": int, "sha256": {str: str}}
_SHAPE = {"token_dtype": str, "vocab_size": int, "tokenizer_sha256": str, "splits": {str: _SPLIT}}


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest type in datatrove's layout that holds every token id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def write_shard(
    folder: Path, split: str, documents: Iterable[Sequence[int]], vocab_size: int, tokenizer_name: str
) -> dict[str, Any]:
    """Write one split.

    Args:
        documents: the token ids of each document, its end-of-text token included.

    Returns:
        The split's entry in the manifest: `file`, `tokens`, `documents`, `sha256` of each file.
    """
    path = folder / f"{split}-00000.ds"
    dtype = token_dtype(vocab_size)
    ends, total = array("Q"), 0
    with path.open("wb") as stream:
        for ids in documents:
            stream.write(np.asarray(ids, dtype=dtype).tobytes())
            total += len(ids)
            ends.append(total)
    return _complete(path, np.asarray(ends, dtype="<u8"), dtype, tokenizer_name)


def join_shards(
    folder: Path, split: str, parts: Iterable[Path], vocab_size: int, tokenizer_name: str
) -> dict[str, Any]:
    """Write one split as `write_shard` does, by joining shards in their order."""
    path = folder / f"{split}-00000.ds"
    dtype, ends, total = token_dtype(vocab_size), [np.empty(0, "<u8")], 0
    with path.open("wb") as stream:
        for part in parts:
            with part.open("rb") as tokens:
                shutil.copyfileobj(tokens, stream, 1 << 24)
            ends.append(np.fromfile(_beside(part, "index"), "<u8") + np.uint64(total))
            total = stream.tell() // dtype.itemsize
    return _complete(path, np.concatenate(ends), dtype, tokenizer_name)


def _complete(path: Path, ends: np.ndarray, dtype: np.dtype, tokenizer_name: str) -> dict[str, Any]:
    """Write the index and metadata beside the tokens; returns the entry in the manifest."""
    total = int(ends[-1]) if len(ends) else 0
    index, metadata = _beside(path, "index"), _beside(path, "metadata")
    index.write_bytes(ends.tobytes())
    metadata.write_text(f"{tokenizer_name}|{dtype.itemsize}\n{total}\n{total / 1e6:.2f} MT", encoding="utf-8")
    hashes = {file.name: sha256(file) for file in (path, index, metadata)}
    return {"file": path.name, "tokens": total, "documents": len(ends), "sha256": hashes}


def write_manifest(
    folder: Path, splits: dict[str, Any], tokenizer_dir: Path, vocab_size: int, notes: dict[str, Any]
) -> None:
    """Write `manifest.json`: the contents of the shards, the tokenizer that made them, and notes."""
    manifest = {
        "token_dtype": token_dtype(vocab_size).name,
        "vocab_size": vocab_size,
        "tokenizer_sha256": sha256(tokenizer_dir / "tokenizer.json"),
        "splits": splits,
    } | notes
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of shards.

    Raises:
        UserError: there is none, or it is broken.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(f"'data': {folder} holds no token shards (no {MANIFEST}); run `scratch prepare` first")
    try:
        return read_json(path, _SHAPE)
    except ValueError:
        raise UserError(f"'data': {path} is damaged; run `scratch prepare` again") from None


class TokenShards:
    """The tokens of one split, as memory maps: opening costs nothing, and processes share the pages.

    Attributes:
        tokens: (tokens,) ids in the type they are stored in.
        document_ends: (documents,) int64; document i is `tokens[document_ends[i - 1]:document_ends[i]]`.
        text_bytes: bytes of the text they encode, as UTF-8; end-of-text tokens count no bytes.
        vocab_size: of the tokenizer that made them.
    """

    def __init__(self, tokens: np.ndarray, document_ends: np.ndarray, text_bytes: int, vocab_size: int):
        self.tokens = tokens
        self.document_ends = document_ends
        self.text_bytes = text_bytes
        self.vocab_size = vocab_size

    def __len__(self) -> int:
        return len(self.tokens)


def open_shards(folder: str | Path, split: str) -> TokenShards:
    """Open one split of a folder that `scratch prepare` wrote.

    Raises:
        UserError: no shards, no such split, or files that do not have the size the manifest says.
    """
    manifest = read_manifest(folder)
    if split not in manifest["splits"]:
        raise UserError(f"'data': {folder} has no split '{split}'; it holds {', '.join(manifest['splits'])}")
    entry = manifest["splits"][split]
    path = Path(folder) / entry["file"]
    if not entry["tokens"]:
        raise UserError(f"'data': {folder}: the split '{split}' is empty; run `scratch prepare` with more text")
    return open_shard(path, entry, manifest["vocab_size"])


def open_shard(path: Path, entry: dict[str, Any], vocab_size: int) -> TokenShards:
    """Open one shard by its entry in the manifest.

    Raises:
        UserError: the files do not have the size that it says.
    """
    tokens = _map(path, token_dtype(vocab_size), entry["tokens"])
    # Signed, so that differences cannot wrap around; no corpus has 2**63 tokens.
    document_ends = _map(_beside(path, "index"), np.dtype("<i8"), entry["documents"])
    if document_ends[-1] != len(tokens) or document_ends[0] < 0 or (np.diff(document_ends) < 0).any():
        raise UserError(
            f"'data': {path}.index is damaged: its offsets do not match the tokens; run `scratch prepare` again"
        )
    return TokenShards(tokens, document_ends, entry["bytes"], vocab_size)


def check_hashes(folder: str | Path) -> None:
    """Check that the shards have the bytes that were written. Reads all of them.

    Raises:
        UserError: a file is missing or damaged.
    """
    hashes = {
        Path(folder) / name: expected
        for entry in read_manifest(folder)["splits"].values()
        for name, expected in entry["sha256"].items()
    }
    for path in hashes:
        if not path.is_file():
            raise UserError(f"'data': {path} is missing; run `scratch prepare` again")
    size = sum(path.stat().st_size for path in hashes)
    with progress_bar(total=size, desc=f"checking {folder}", unit="B", unit_scale=True, leave=False) as bar:
        for path, expected in hashes.items():
            if sha256(path) != expected:
                raise UserError(
                    f"'data': {path} is damaged: its hash differs from {MANIFEST}; copy it again, or "
                    "delete it and run `scratch prepare` again"
                )
            bar.update(path.stat().st_size)


def check_tokenizer(folder: str | Path, tokenizer_dir: str | Path) -> None:
    """Check that a tokenizer made the shards.

    Raises:
        UserError: no tokenizer.json, or not the one in the manifest.
    """
    path = Path(tokenizer_dir) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"'tokenizer': {tokenizer_dir} holds no tokenizer.json; run `scratch tokenizer` first")
    if sha256(path) != read_manifest(folder)["tokenizer_sha256"]:
        raise UserError(
            f"'tokenizer': {tokenizer_dir} is not the tokenizer that made the shards in {folder}; "
            "run `scratch prepare` with it again"
        )


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}")


def _map(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    found = path.stat().st_size if path.is_file() else None
    if found != count * dtype.itemsize:
        state = "missing" if found is None else f"damaged: {found:,} bytes, not {count * dtype.itemsize:,}"
        raise UserError(f"'data': {path} is {state}; run `scratch prepare` again")
    return np.memmap(path, dtype=dtype, mode="r")
