"""Speed and memory of our model and transformers' LlamaForCausalLM of the same shape, in training and generation.

    python -m benchmarks.model                                    # 14M parameters, seconds a round on a laptop
    python -m benchmarks.model --presets llama scratch --compile
    python -m benchmarks.model --nanogpt path/to/nanoGPT          # a checkout of nanoGPT as a further contestant

Contestants take turns within every round, so that other load on the machine affects all of them. A figure is the median
over rounds, a ratio the median of the ratios within rounds (above 1: faster than Llama, uncompiled).

Training: a step is forward, loss, backward and a fused AdamW update, under bf16 autocast if the device has bf16. Ours
computes the loss without logits, as `scratch pretrain` does. With --compile each contestant runs compiled as well: ours
by layers, the others as a whole, Llama with either attention. MFU counts 6 operations per token for every weight of a
matrix product and 6 * layers * seq * hidden for causal attention (https://arxiv.org/abs/2204.02311, halved for the
mask). It divides by the fastest square matrix product measured between the rounds, in the same dtype.

Generation: `bandwidth` is the rate at which weights of matrix products are read, once per new token of the batch, as a
share of the rate at which memory is read between the rounds. At 1, generation is limited by memory alone; above 1 the
weights stay in the processor's cache.

Memory is the peak of two training steps in a separate process, minus what the process holds before it builds the model.
The last line is the result as JSON.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.machine import conditions as machine
from modeling_scratch import PRESETS, ScratchConfig, ScratchForCausalLM
from training.common.device import has_bf16, matrix_product, pick_device, seconds
from training.machine.attention import pick_attention
from training.pretraining.throughput import matrix_parameters

BASELINE = "transformers Llama"


@dataclass(frozen=True)
class Contestant:
    name: str
    architecture: str  # one of our presets, or a peer
    attention: str = "sdpa"
    compiled: bool = False

    @property
    def ours(self) -> bool:
        return self.architecture in PRESETS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--presets", nargs="+", default=["llama"], choices=PRESETS, help="our presets, each a contestant"
    )
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256, help="length of a training sequence, in tokens")
    parser.add_argument("--batch", type=int, default=8, help="sequences in a training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="training steps per contestant and round")
    parser.add_argument("--prompt", type=int, default=32, help="length of the prompt, in tokens")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens to generate; 0 skips generation")
    parser.add_argument("--generate-batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--matmul-size", type=int, help="size of the square matrix product (default: 8192 on a GPU, else 2048)"
    )
    parser.add_argument("--dtype", choices=("bf16", "fp32"), help="precision (default: bf16 if the device has it)")
    parser.add_argument("--compile", action="store_true", help="add compiled contestants (torch.compile)")
    parser.add_argument("--tied", action="store_true", help="tie the output matrix to the embedding")
    parser.add_argument(
        "--memory-vocab-sizes",
        type=int,
        nargs="*",
        help="vocabularies for peak memory (default: --vocab-size and 131072)",
    )
    parser.add_argument("--nanogpt", type=Path, help="a nanoGPT checkout (the folder of its model.py)")
    return parser.parse_args()


def our_config(arguments: argparse.Namespace, preset: str) -> ScratchConfig:
    return ScratchConfig.from_preset(
        preset,
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        num_key_value_heads=arguments.kv_heads,
        max_position_embeddings=max(arguments.seq, arguments.prompt + arguments.new_tokens),
        tie_word_embeddings=arguments.tied,
    )


def llama_config(arguments: argparse.Namespace) -> LlamaConfig:
    """Stock Llama in the shape of our `llama` preset, field for field."""
    ours = our_config(arguments, "llama")
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "tie_word_embeddings",
        "bos_token_id",
        "eos_token_id",
    )
    return LlamaConfig(rms_norm_eps=ours.norm_eps, **{name: getattr(ours, name) for name in names})


def load_nanogpt(folder: Path, arguments: argparse.Namespace) -> nn.Module:
    spec = importlib.util.spec_from_file_location("nanogpt", folder / "model.py")
    nanogpt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nanogpt)
    config = nanogpt.GPTConfig(
        block_size=arguments.seq,
        vocab_size=arguments.vocab_size,
        n_layer=arguments.layers,
        n_head=arguments.heads,
        n_embd=arguments.hidden_size,
        bias=False,
    )
    with contextlib.redirect_stdout(sys.stderr):  # it prints its size
        return nanogpt.GPT(config)


def operations_per_token(model: nn.Module, arguments: argparse.Namespace) -> int:
    """Operations of a training step per token: forward and backward, 6 for each weight of a matrix product."""
    return 6 * matrix_parameters(model) + 6 * arguments.layers * arguments.seq * arguments.hidden_size


def library_loss(model: nn.Module, input_ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids, labels=input_ids, use_cache=False).loss


def our_loss(model: nn.Module, input_ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids, labels=input_ids, use_cache=False, skip_logits=True).loss


def nanogpt_loss(model: nn.Module, input_ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids, input_ids.roll(-1, dims=1))[1]  # its labels are shifted by the caller


def training_step(
    model: nn.Module,
    loss_of: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    input_ids: torch.Tensor,
    dtype: torch.dtype,
) -> Callable[[], None]:
    """Forward, loss, backward and update on the same batch every time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(input_ids.device.type, dtype, enabled=dtype != torch.float32):
            loss = loss_of(model, input_ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def race(
    works: dict[str, Callable[[], object]], rounds: int, device: torch.device, title: str
) -> dict[str, list[float]]:
    """Seconds of every contestant in every round; the order reverses from round to round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():  # warm up: compilation, caches
        work()
    for index in tqdm(range(rounds), desc=title, unit="round"):
        for name in list(works)[:: -1 if index % 2 else 1]:
            taken[name].append(seconds(works[name], device))
    return taken


def ratio(taken: dict[str, list[float]], name: str, other: str) -> float:
    """How many times as fast `name` is as `other`."""
    return statistics.median(theirs / mine for theirs, mine in zip(taken[other], taken[name], strict=True))


def contestants(arguments: argparse.Namespace, device: torch.device) -> list[Contestant]:
    """Contestants of the training race; the first is the baseline."""
    plain = [Contestant(BASELINE, "llama, stock")]
    plain += [Contestant(f"ours, {preset}", preset) for preset in arguments.presets]
    plain += [Contestant("nanoGPT", "nanogpt")] if arguments.nanogpt else []
    compiled = []
    if arguments.compile:
        compiled.append(Contestant(f"{BASELINE}, eager attention, compiled", "llama, stock", "eager", compiled=True))
        for entry in plain:
            attention = pick_attention(device, arguments.seq, compiled=True) if entry.ours else entry.attention
            compiled.append(Contestant(f"{entry.name}, compiled", entry.architecture, attention, compiled=True))
    return plain + compiled


def build(entry: Contestant, arguments: argparse.Namespace, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    if entry.architecture == "nanogpt":
        model = load_nanogpt(arguments.nanogpt, arguments)
    else:
        network = ScratchForCausalLM if entry.ours else LlamaForCausalLM
        config = our_config(arguments, entry.architecture) if entry.ours else llama_config(arguments)
        model = network._from_config(config, attn_implementation=entry.attention)
    model = model.to(device).train()
    if entry.compiled and entry.ours:
        model.compile_regions()
    elif entry.compiled:
        model.compile()
    return model


def build_step(
    entry: Contestant, model: nn.Module, arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> Callable[[], None]:
    torch.manual_seed(0)
    input_ids = torch.randint(arguments.vocab_size, (arguments.batch, arguments.seq), device=device)
    loss_of = nanogpt_loss if entry.architecture == "nanogpt" else our_loss if entry.ours else library_loss
    return training_step(model, loss_of, input_ids, dtype)


def race_training(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> tuple[dict, float]:
    """Figures by contestant, and the operations per second of the matrix product."""
    entries = contestants(arguments, device)
    models = {entry.name: build(entry, arguments, device) for entry in entries}
    works = {}
    for entry in entries:
        step = build_step(entry, models[entry.name], arguments, device, dtype)
        works[entry.name] = lambda step=step: [step() for _ in range(arguments.steps)]
    size = arguments.matmul_size or (8192 if device.type == "cuda" else 2048)
    works["matrix product"], operations = matrix_product(device, dtype, size)
    taken = race(works, arguments.rounds, device, "training")
    peak = operations / min(taken.pop("matrix product"))

    peers = [entry.name for entry in entries if not entry.ours]
    best_peer = min(peers, key=lambda name: statistics.median(taken[name]))
    figures = {}
    for name, times in taken.items():
        step_seconds = statistics.median(times) / arguments.steps
        tokens_per_second = arguments.batch * arguments.seq / step_seconds
        figures[name] = {
            "parameters": sum(weight.numel() for weight in models[name].parameters()),
            "step_ms": round(step_seconds * 1000, 2),
            "tokens_per_second": round(tokens_per_second, 1),
            "mfu": round(operations_per_token(models[name], arguments) * tokens_per_second / peak, 4),
            "ratio": round(ratio(taken, name, BASELINE), 4),
            "to_best_peer": round(ratio(taken, name, best_peer), 4),
        }
    return figures, peak


def resident_megabytes(figure: str) -> float:
    """Memory of this process: VmRSS, current, or VmHWM, its maximum so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{figure}:")[2].split()[0]) * 1024 / 1e6


def measure_peak(entry: Contestant, arguments: argparse.Namespace, dtype: torch.dtype, results) -> None:
    """Put the peak memory of two training steps, in megabytes; run in a new process, which has built nothing yet."""
    device = pick_device()
    before = 0 if device.type == "cuda" else resident_megabytes("VmRSS")
    step = build_step(entry, build(entry, arguments, device), arguments, device, dtype)
    for _ in range(2):  # the first creates the optimizer's state
        step()
    peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else resident_megabytes("VmHWM")
    results.put(peak - before)


def measure_memory(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, dict]:
    """Peak memory by vocabulary size, then uncompiled contestant."""
    figures = {}
    spawn = multiprocessing.get_context("spawn")
    vocab_sizes = arguments.memory_vocab_sizes
    for vocab_size in [arguments.vocab_size, 131072] if vocab_sizes is None else vocab_sizes:
        shape = argparse.Namespace(**(vars(arguments) | {"vocab_size": vocab_size}))
        peaks = {}
        for entry in contestants(shape, device):
            if entry.compiled:
                continue
            results = spawn.Queue()
            process = spawn.Process(target=measure_peak, args=(entry, shape, dtype, results))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"memory of {entry.name} at vocabulary {vocab_size}: the process failed, see above")
            peaks[entry.name] = results.get()
        figures[str(vocab_size)] = {
            name: {"peak_megabytes": round(peak, 1), "share": round(peak / peaks[BASELINE], 4)}
            for name, peak in peaks.items()
        }
    return figures


def memory_read(device: torch.device) -> tuple[Callable[[], torch.Tensor], int]:
    """A reduction that reads a buffer larger than any cache, and the buffer's bytes."""
    buffer = torch.ones(2**26, device=device)
    return buffer.sum, buffer.nbytes


def race_generation(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict:
    """Greedy generation with the default cache and weights in `dtype`: figures by batch size, then contestant.

    Our `llama` preset has the same weights as Llama.
    """
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {BASELINE: LlamaForCausalLM._from_config(llama_config(arguments), dtype=dtype)}
    for preset in arguments.presets:
        model = ScratchForCausalLM._from_config(our_config(arguments, preset), dtype=dtype)
        if preset == "llama":
            model.load_state_dict(models[BASELINE].state_dict())
        models[f"ours, {preset}"] = model
    weight_bytes = {name: matrix_parameters(model) * dtype.itemsize for name, model in models.items()}
    figures = {}
    for batch in arguments.generate_batches:
        prompt = torch.randint(arguments.vocab_size, (batch, arguments.prompt), device=device)
        options = {
            "attention_mask": torch.ones_like(prompt),
            "max_new_tokens": arguments.new_tokens,
            "min_new_tokens": arguments.new_tokens,
            "do_sample": False,
        }
        works = {
            name: lambda model=model.to(device).eval(): model.generate(prompt, **options)
            for name, model in models.items()
        }
        works["memory read"], read_bytes = memory_read(device)
        taken = race(works, arguments.rounds, device, f"generation, batch {batch}")
        bandwidth = read_bytes / min(taken.pop("memory read"))
        figures[str(batch)] = {
            name: {
                "seconds": round(statistics.median(times), 4),
                "tokens_per_second": round(batch * arguments.new_tokens / statistics.median(times), 1),
                "ratio": round(ratio(taken, name, BASELINE), 4),
                "bandwidth": round(weight_bytes[name] * arguments.new_tokens / statistics.median(times) / bandwidth, 3),
            }
            for name, times in taken.items()
        }
    return figures


def print_table(title: str, figures: dict[str, dict]) -> None:
    columns = list(figures[BASELINE])
    print(f"\n{title:44}" + "".join(f"{column:>18}" for column in columns))
    for name, row in figures.items():
        print(f"{name:44}" + "".join(f"{row[column]:>18,}" for column in columns))


def main() -> None:
    arguments = parse_arguments()
    device = pick_device()
    dtype_name = arguments.dtype or ("bf16" if has_bf16(device) else "fp32")
    dtype = torch.bfloat16 if dtype_name == "bf16" else torch.float32

    training, peak = race_training(arguments, device, dtype)
    generation = race_generation(arguments, device, dtype) if arguments.new_tokens else {}
    measurable = device.type == "cuda" or Path("/proc/self/status").exists()
    memory = measure_memory(arguments, device, dtype) if measurable else {}

    conditions = {name: value for name, value in vars(arguments).items() if name != "nanogpt"}
    conditions |= {"dtype": dtype_name} | machine(device)
    where = f"{conditions['processor']}, {conditions['threads']} threads"
    print(f"{where}, {dtype_name}, matrix product {peak / 1e12:.3f} TFLOP/s")
    print_table("training", training)
    for batch, figures in generation.items():
        print_table(f"generation, batch {batch}", figures)
    for vocab_size, figures in memory.items():
        print_table(f"memory, vocabulary {vocab_size}", figures)
    print()
    results = {"matmul_tflops": round(peak / 1e12, 4), "training": training, "generation": generation, "memory": memory}
    print(json.dumps({"benchmark": "model", "conditions": conditions} | results))


if __name__ == "__main__":
    main()
