"""llama.cpp with a GGUF file in this process, by the package xllamacpp, and requests to its server."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest


class LlamaCpp:
    """Requests to a running server."""

    def __init__(self, address: str):
        self.address = address

    def post(self, route: str, **body: Any) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + route, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

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

    def log_probabilities(self, ids: list[int], rows: int) -> np.ndarray:
        """Of every token after a prompt, before the sampler's rules."""
        answer = self.post("/completion", prompt=ids, n_predict=1, temperature=0, n_probs=rows, cache_prompt=False)
        found = np.full(rows, np.nan)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        return found

    def greedy(self, ids: list[int], length: int) -> list[int]:
        """The most likely tokens after a prompt, except those that end a text."""
        options = {"n_predict": length, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        return self.post("/completion", prompt=ids, **options)["tokens"]


@contextmanager
def running(file: Path, context: int) -> Iterator[LlamaCpp]:
    """A server with one thread and a cache in F32, the settings that repeat transformers' arithmetic."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="comes with the extra `dev`")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = context, 1, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = settings.n_threads_http = 1
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.warmup, settings.verbosity = False, -1
    server = xllamacpp.Server(settings)
    try:
        yield LlamaCpp(server.listening_address)
    finally:
        del server
