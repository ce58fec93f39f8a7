"""llama.cpp with a GGUF file in this process, and requests to its server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.llama_server import LlamaServer


class LlamaCpp(LlamaServer):
    """A running server, with ids of texts."""

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Ids of a text, with those that the file says to add to each.

        Args:
            special: whether special tokens in the text are found.
        """
        return self.post("/tokenize", content=text, add_special=True, parse_special=special)["tokens"]

    def tokenize_each(self, texts: list[str], special: bool = False) -> list[list[int]]:
        """Ids of texts in one request. Only the first gets what is added to each."""
        mixed = [part for text in texts for part in (text, -1)]  # a number stands for itself
        ids, found = [], []
        for token in self.post("/tokenize", content=mixed, add_special=True, parse_special=special)["tokens"]:
            if token == -1:
                ids.append(found)
                found = []
            else:
                found.append(token)
        return ids


@contextmanager
def running(file: Path, context: int) -> Iterator[LlamaCpp]:
    """A server, which ends with the `with` block."""
    pytest.importorskip("xllamacpp", reason="comes with the extra `dev`")
    engine = LlamaCpp(file, context)
    try:
        yield engine
    finally:
        del engine.server
