"""Answers per second of GRPO: our `generate` against transformers' own, and whole steps of TRL's trainer.

    python -m benchmarks.rollouts [MODEL] [--prompts 16] [--answers 8] [--prompt 24] [--tokens 64] [--rounds 2]

Without MODEL a model of the size of recipes/arithmetic with random weights is made. The contestants have the same
weights and take turns, a round each, after one unmeasured round:

    stock       Qwen3ForCausalLM of transformers
    ordinary    our class, with transformers' own steps in place of ours
    ours        our class as it is

`generation`: sampled answers, several to each prompt; `that end` lets one token in eight end an answer (at most
--tokens), `of full length` none. `GRPO steps`: TRL's GRPOTrainer with the settings of recipes/arithmetic/grpo.yaml on
sums, and the share that generating takes; answers of a model with random weights have full length, 16 tokens. On one
thread, processor time is measured, which other programs disturb little; on several, wall time. The last line is JSON.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from datasets import Dataset
from transformers import GenerationMixin, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback
from transformers import logging as transformers_logging

from benchmarks.machine import conditions
from benchmarks.serving import small_tokenizer
from modeling_scratch import ScratchConfig, ScratchForCausalLM, modeling_scratch
from modeling_scratch.conversion_scratch import to_stock
from training.model_io.language_model import open_language_model

SUMS = [f"{first} - {second} + {third} =" for first in range(9) for second in range(25, 99, 9) for third in (7, 60)]


def clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def arithmetic_size(vocab: int) -> ScratchForCausalLM:
    """A model of the size of recipes/arithmetic, with random weights."""
    torch.manual_seed(0)
    sizes = {"vocab_size": vocab, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2}
    return ScratchForCausalLM(ScratchConfig.from_preset("qwen3", max_position_embeddings=128, **sizes)).eval()


@contextlib.contextmanager
def ordinary_steps() -> Iterator[None]:
    """Context in which our class generates as transformers does."""
    fast, prefill = modeling_scratch.fast_decoding, modeling_scratch.ScratchForCausalLM._prefill
    modeling_scratch.fast_decoding = lambda *_: contextlib.nullcontext()
    modeling_scratch.ScratchForCausalLM._prefill = GenerationMixin._prefill
    try:
        yield
    finally:
        modeling_scratch.fast_decoding, modeling_scratch.ScratchForCausalLM._prefill = fast, prefill


def generation(model: PreTrainedModel, prompts: torch.Tensor, tokens: int, ends: list[int] | None) -> float:
    """Answers per second."""
    torch.manual_seed(0)
    started = clock()
    model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=True,
        top_k=0,
        max_new_tokens=tokens,
        eos_token_id=ends,
        pad_token_id=0,
    )
    return len(prompts) / (clock() - started)


class StepTimes(TrainerCallback):
    """The seconds of each step of a trainer."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_step_begin(self, *_, **__):
        self.started = clock()

    def on_step_end(self, *_, **__):
        self.seconds.append(clock() - self.started)


def grpo_steps(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, steps: int) -> tuple[float, float]:
    """Median seconds of a step of TRL's trainer, and of generating in it."""
    from trl import GRPOConfig, GRPOTrainer

    generating: list[float] = []

    def timed(*arguments, **options):
        started = clock()
        output = type(model).generate(model, *arguments, **options)
        generating.append(clock() - started)
        return output

    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # TRL opens it once more, as the reference of the KL penalty
        model = type(model).from_pretrained(folder)
        model.generate = timed
        config = GRPOConfig(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=128,
            num_generations=8,
            max_completion_length=16,
            beta=0.04,
            learning_rate=1e-4,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        GRPOTrainer(
            model=model,
            args=config,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": SUMS}),
            reward_funcs=[lambda completions, **_: [float(text.count("1")) for text in completions]],
            callbacks=[times],
        ).train()
    return statistics.median(times.seconds[1:]), statistics.median(generating[1:])


def measure(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[object]]:
    """What each contestant returned in the measured rounds."""
    results = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            result = run()
            if number:
                results[name].append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder of a model of the qwen3 preset")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--answers", type=int, default=8, help="to each prompt")
    parser.add_argument("--prompt", type=int, default=24, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of each answer")
    parser.add_argument("--steps", type=int, default=3, help="GRPO steps in a round")
    parser.add_argument("--rounds", type=int, default=2, help="measured rounds of each contestant")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    if options.model:
        model, tokenizer = open_language_model(options.model)
    else:
        tokenizer = small_tokenizer()
        tokenizer.add_special_tokens({"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"})
        model = arithmetic_size(len(tokenizer))
    model.config._attn_implementation = "sdpa"
    stock = to_stock(model, "qwen3").eval()
    found = conditions(model.device) | {"load": round(os.getloadavg()[0], 1), "clock": clock_name()}
    found |= {"parameters": model.num_parameters(), "answers": options.prompts * options.answers}
    print(", ".join(f"{name} {value}" for name, value in found.items()))
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(8, len(tokenizer), (options.prompts, options.prompt), generator=draw)
    prompts = prompts.repeat_interleave(options.answers, dim=0)

    def compared(run: Callable[[PreTrainedModel], object]) -> dict[str, Callable[[], object]]:
        def ordinary() -> object:
            with ordinary_steps():
                return run(model)

        return {"stock": lambda: run(stock), "ordinary": ordinary, "ours": lambda: run(model)}

    results: dict[str, dict[str, float]] = {}
    for name, ends in {"that end": list(range(8, len(tokenizer), 8)), "of full length": None}.items():
        model.generation_config.eos_token_id = stock.generation_config.eos_token_id = ends
        run = lambda contestant, ends=ends: generation(contestant, prompts, options.tokens, ends)  # noqa: E731
        rates = measure(compared(run), options.rounds)
        results[name] = {way: round(statistics.median(measured), 1) for way, measured in rates.items()}
        for way, rate in results[name].items():
            low, high = min(rates[way]), max(rates[way])
            ratio = rate / results[name]["stock"]
            print(f"answers {name:<15} {way:<9} {rate:8.1f} answers/s  {ratio:5.2f} x stock  ({low:.1f} to {high:.1f})")
    ends = tokenizer.eos_token_id
    model.generation_config.eos_token_id = stock.generation_config.eos_token_id = ends
    steps = measure(compared(lambda contestant: grpo_steps(contestant, tokenizer, options.steps)), options.rounds)
    for way, measured in steps.items():
        whole, generating = (statistics.median(values) for values in zip(*measured))
        results[f"step, {way}"] = {"seconds": round(whole, 3), "generating": round(generating, 3)}
        print(f"GRPO step {way:<9} {whole:.3f} s, of which generating {generating:.3f} s")
    print(json.dumps({"conditions": found, "results": results}))


def clock_name() -> str:
    return "processor time" if torch.get_num_threads() == 1 else "wall time"


if __name__ == "__main__":
    main()
