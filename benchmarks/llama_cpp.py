"""llama.cpp beside our own `generate`: ids, logits, greedy tokens and speed of a model's GGUF files, on one thread.

    python -m benchmarks.llama_cpp --model runs/quickstart/dpo --held_out runs/quickstart/data

Needs the extras `gguf` and `dev` (the package xllamacpp). For each precision it exports the model, opens the file with
a cache in F32 and without flash attention, and compares with transformers' float32:

    ids     texts of the held-out split whose ids differ
    logits  largest difference after 30 prompts, up to a constant
    same    prompts with the same 64 greedy tokens
    speed   tokens per second of a prompt, and of generation at batch 1: medians of rounds in which all take turns

Conditions first: the speeds depend on the machine and on what else runs. The last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.llama_server import LlamaServer
from benchmarks.machine import conditions
from training.commands.export import main as export
from training.data.shards import open_shards
from training.engines.gguf_file import PRECISIONS

PROMPTS, LENGTH, GENERATED = 30, 40, 64


class LlamaCpp(LlamaServer):
    """A file in llama.cpp, for a race with ours."""

    def speeds(self, ids: list[int]) -> tuple[float, float]:
        """Tokens per second of a prompt and of generation after it, as llama.cpp times them."""
        timings = self.complete(ids, GENERATED, cache_prompt=False)["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]


class Ours:
    """A model in transformers."""

    def __init__(self, folder: str):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        settings = self.model.generation_config
        ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        self.never = sorted({*(settings.suppress_tokens or ()), *ends})

    @torch.no_grad()
    def log_probabilities(self, ids: list[int]) -> np.ndarray:
        return self.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()

    def greedy(self, ids: list[int]) -> list[int]:
        options = {"do_sample": False, "suppress_tokens": self.never, "eos_token_id": None}
        found = self.model.generate(torch.tensor([ids]), max_new_tokens=GENERATED, **options)
        return found[0, len(ids) :].tolist()

    def speeds(self, ids: list[int]) -> tuple[float, float]:
        """Tokens per second of a prompt, and of generation without the time of the prompt."""
        with torch.no_grad():
            started = time.perf_counter()
            self.model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        prompt = time.perf_counter() - started
        started = time.perf_counter()
        self.greedy(ids)
        return len(ids) / prompt, GENERATED / (time.perf_counter() - started - prompt)


def compare(ours: Ours, engine: LlamaCpp, prompts: list[list[int]]) -> tuple[float, int]:
    """The largest difference of a logit after the prompts, and the number of prompts with the same greedy tokens."""
    largest, same = 0.0, 0
    for ids in prompts:
        expected = ours.log_probabilities(ids)
        difference = engine.log_probabilities(ids, len(expected)) - expected
        largest = max(largest, float(np.nanmax(np.abs(difference - np.nanmedian(difference)))))
        same += engine.complete(ids, GENERATED, cache_prompt=False)["tokens"] == ours.greedy(ids)
    return largest, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model that `scratch export --to gguf` takes")
    parser.add_argument("--held_out", required=True, help="folder of `scratch prepare` with its tokenizer")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of speed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, ours = AutoTokenizer.from_pretrained(options.model), Ours(options.model)
    context = ours.model.config.max_position_embeddings
    tokens = open_shards(options.held_out, "validation").tokens.astype("int64")
    starts = np.linspace(0, len(tokens) - context, PROMPTS).astype(int)
    prompts = [tokens[start : start + LENGTH].tolist() for start in starts]
    text = tokenizer.batch_decode([tokens[start : start + context] for start in starts])
    with tempfile.TemporaryDirectory() as place:
        engines: dict[str, LlamaCpp] = {}
        for name in PRECISIONS:
            arguments = {"model": options.model, "output_dir": f"{place}/{name}", "to": "gguf", "precision": name}
            arguments |= {"name": "model", "held_out": options.held_out}
            export([f"--{key}={value}" for key, value in arguments.items()])
            engines[name] = LlamaCpp(Path(place, name, f"model-{name.upper()}.gguf"), context)
        results: dict[str, dict[str, Any]] = {}
        for name, engine in engines.items():
            found = [engine.post("/tokenize", content=each, parse_special=True)["tokens"] for each in text]
            differ = sum(ids != expected for ids, expected in zip(found, tokenizer(text)["input_ids"]))
            logits, same = compare(ours, engine, prompts)
            results[name] = {"texts_that_differ": differ, "logits": logits, "same": same}
        longest = tokens[: context - GENERATED].tolist()
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ("ours", *engines)}
        for number in range(options.rounds + 1):
            for name, each in {"ours": ours, **engines}.items():
                speeds = each.speeds(longest)
                if number:  # one round to warm up
                    times[name].append(speeds)
    print(conditions(ours.model.device), f"prompt of {len(longest)} tokens, {options.rounds} rounds")
    for name, pairs in times.items():
        prompt, generation = (statistics.median(column) for column in zip(*pairs))
        results.setdefault(name, {}).update(prompt=round(prompt, 1), generation=round(generation, 1))
    for name, found in results.items():
        print(f"{name:<6}", {key: f"{value:.2g}" if key == "logits" else value for key, value in found.items()})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
