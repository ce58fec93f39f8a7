"""Tokens per second of a served model: answers at once against the same answers one after another.

    python -m benchmarks.serving MODEL [--answers 8] [--tokens 128] [--rounds 5]

Conditions first: the figures depend on the machine and on what else runs. Without MODEL a Qwen3 of 5.3M parameters
with random weights is made. The contestants take turns, a round each, after one unmeasured round:

    generate          transformers' own `generate`, one answer after another
    one at a time     the engine of `scratch serve`, each answer requested when the one before has ended
    all at once       the same answers, requested together

Greedy answers and sampled ones (temperature 0.8, top_k 50) are measured separately. The last line is JSON.
"""

import argparse
import json
import os
import platform
import queue
import statistics
import time
from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.model_io.language_model import open_language_model
from training.serving.engine import Engine, Request
from training.serving.settings import AnswerSettings

SAMPLING = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 0.8, "top_k": 50}}


def small_model(**changes: int) -> ScratchForCausalLM:
    """A Qwen3 of 5.3M parameters (4 layers of width 256), with random weights."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 256} | changes
    return ScratchForCausalLM(ScratchConfig.from_preset("qwen3", **sizes)).eval()


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer for the text of answers, whose tokens do not matter."""
    tokenizer = ScratchTokenizer.train(["def read_text(path): return open(path).read()"] * 20, 280)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer.to_backend())


def contestants(
    model: PreTrainedModel, engine: Engine, prompts: list[list[int]], tokens: int, sampling: dict[str, float]
) -> dict[str, Callable[[], int]]:
    """The three ways to generate the same answers. Each returns the number of generated tokens."""
    requests = [
        Request(prompt, AnswerSettings(**sampling, seed=seed, max_new_tokens=tokens))
        for seed, prompt in enumerate(prompts)
    ]

    def wait(done: queue.Queue, count: int) -> None:
        while count:
            piece = done.get()
            assert piece.error is None, piece.error
            count -= piece.finish_reason is not None

    def one_at_a_time() -> int:
        generated = 0
        for request in requests:
            done = queue.Queue()
            answer = engine.submit(request, done.put)
            wait(done, 1)
            generated += len(answer.ids)
        return generated

    def all_at_once() -> int:
        done = queue.Queue()
        answers = [engine.submit(request, done.put) for request in requests]
        wait(done, len(requests))
        return sum(len(answer.ids) for answer in answers)

    def generate() -> int:
        options = {"do_sample": True, **sampling} if sampling["temperature"] else {"do_sample": False}
        generated = 0
        for prompt in prompts:
            input_ids = torch.tensor([prompt], device=model.device)
            mask = torch.ones_like(input_ids)
            output = model.generate(input_ids, attention_mask=mask, max_new_tokens=tokens, **options)
            generated += output.shape[1] - len(prompt)
        return generated

    return {"generate": generate, "one at a time": one_at_a_time, "all at once": all_at_once}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder of a model, or its name on the Hub")
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of each answer; the context may end it")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each contestant")
    options = parser.parse_args()
    model, tokenizer = open_language_model(options.model) if options.model else (small_model(), small_tokenizer())
    model.generation_config.eos_token_id = None  # only its limit or the context ends an answer
    generator = torch.Generator().manual_seed(0)
    vocab = len(tokenizer)
    prompts = torch.randint(8, vocab, (options.answers, options.prompt), generator=generator).tolist()
    millions, kind = model.num_parameters() / 1e6, str(model.dtype).removeprefix("torch.")
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, load {load:.1f}")
    print(f"{millions:.1f}M parameters in {kind} on {model.device}")
    print(f"{options.answers} answers of at most {options.tokens} tokens after prompts of {options.prompt}")
    medians = {}
    with Engine(model, tokenizer, max_batch=options.answers) as engine:
        for name, sampling in SAMPLING.items():
            ways = contestants(model, engine, prompts, options.tokens, sampling)
            rates = {way: [] for way in ways}
            for number in range(options.rounds + 1):
                for way, run in ways.items():
                    started = time.perf_counter()
                    generated = run()
                    if number:
                        rates[way].append(generated / (time.perf_counter() - started))
            for way, measured in rates.items():
                medians[f"{name}, {way}"] = round(statistics.median(measured), 1)
                low, high = min(measured), max(measured)
                print(f"{name:<8} {way:<14} {medians[f'{name}, {way}']:8.1f} tokens/s   ({low:.1f} to {high:.1f})")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
