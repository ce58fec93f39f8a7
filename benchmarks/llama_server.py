"""llama.cpp's server with a GGUF file, in this process, by the package xllamacpp; the tests use it too."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np


class LlamaServer:
    """A file in a server with one thread, a cache in F32 and no flash attention, which repeats transformers'
    arithmetic.

    Args:
        context: tokens.
    """

    def __init__(self, file: Path, context: int):
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = context, 1, 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = settings.n_threads_http = 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.warmup, settings.verbosity = False, -1
        self.server = xllamacpp.Server(settings)  # ends with this object

    @property
    def address(self) -> str:
        return self.server.listening_address

    def post(self, route: str, **body: Any) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + route, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def log_probabilities(self, ids: list[int], rows: int) -> np.ndarray:
        """Of every token after a prompt, before the sampler's rules; NaN for those that the server leaves out.

        Args:
            rows: of the embedding.
        """
        answer = self.post("/completion", prompt=ids, n_predict=1, temperature=0, n_probs=rows, cache_prompt=False)
        found = np.full(rows, np.nan)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        return found

    def complete(self, ids: list[int], length: int, **options: Any) -> dict[str, Any]:
        """The most likely tokens after a prompt, except those that end a text, with the server's timings."""
        options = {"n_predict": length, "temperature": 0, "ignore_eos": True, "return_tokens": True} | options
        return self.post("/completion", prompt=ids, **options)

    def greedy(self, ids: list[int], length: int) -> list[int]:
        return self.complete(ids, length)["tokens"]
