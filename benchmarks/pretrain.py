"""Time per part of a real pretraining step, and the fraction of the device's speed that it reaches (MFU).

    python -m benchmarks.pretrain                                    # 14M parameters, a minute or two on two cores
    python -m benchmarks.pretrain --compile                          # eager against compiled
    python -m benchmarks.pretrain --data runs/quickstart/data --tokenizer runs/quickstart/tokenizer

Runs the loop of `scratch pretrain` itself in a temporary folder, by default on random tokens. In every round each
contestant trains some steps, validates and saves, in turn.

- Figures are medians over rounds. A ratio is the median of the ratios within rounds; above 1 is faster than eager.
- A step includes the loader, the metrics and the optimizer. MFU compares its operations (counted in
  training/pretraining/throughput.py) with the fastest square matrix product of the rounds, in the same dtype.
- Shares are of the wall time with a validation every --eval-steps and a checkpoint every --save-steps, for which
  training waits.

The last line is everything as JSON.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
from pathlib import Path

import accelerate
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.machine import conditions as machine
from modeling_scratch import PRESETS
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.common.device import has_bf16, matrix_product_rate, pick_device
from training.data.shards import write_manifest, write_shard
from training.model_io.tokenizers import open_tokenizer
from training.pretraining.accelerator import build_accelerator
from training.pretraining.config import PretrainConfig
from training.pretraining.loop import Pretrainer
from training.pretraining.profile import Spans
from training.stages.stage import Stage

OVERHEAD = ("loader", "logging", "evaluation", "checkpointing")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="qwen3", choices=PRESETS)
    parser.add_argument("--vocab-size", type=int, default=8192, help="rows of the embedding")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--seq", type=int, default=256, help="tokens per sequence")
    parser.add_argument("--batch", type=int, default=16, help="sequences per step")
    parser.add_argument("--at-once", type=int, default=16, help="sequences per forward pass")
    parser.add_argument("--optimizer", default="muon", choices=("muon", "adamw"))
    parser.add_argument("--logging-steps", type=int, default=10)
    parser.add_argument("--eval-steps", type=int, default=100)
    parser.add_argument("--eval-sequences", type=int, default=64)
    parser.add_argument("--save-steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="steps per contestant and round")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), help="default: bf16 where the device supports it")
    parser.add_argument("--compile", action="store_true", help="add the compiled version (torch.compile)")
    parser.add_argument("--data", help="folder of shards; default: random tokens")
    parser.add_argument("--tokenizer", help="folder of the tokenizer that made the shards")
    return parser.parse_args()


def write_random_data(folder: Path, arguments: argparse.Namespace) -> None:
    """Write shards of random tokens, enough for all steps, and a tokenizer."""
    ScratchTokenizer.train(["any text will do"], 270).save(folder / "tokenizer")
    (folder / "data").mkdir()
    steps = (arguments.rounds + 1) * arguments.steps
    sequences = {"train": steps * arguments.batch + 1, "validation": arguments.eval_sequences + 1}
    random, splits = np.random.default_rng(0), {}
    for split, count in sequences.items():
        documents = random.integers(arguments.vocab_size, size=(count, arguments.seq))
        splits[split] = write_shard(folder / "data", split, documents, arguments.vocab_size, "random")
        splits[split]["bytes"] = 4 * documents.size
    write_manifest(folder / "data", splits, folder / "tokenizer", arguments.vocab_size, {})


def build(name: str, folder: Path, arguments: argparse.Namespace) -> tuple[Pretrainer, Stage]:
    config = PretrainConfig(
        output_dir=str(folder / name),
        data=arguments.data or str(folder / "data"),
        tokenizer=arguments.tokenizer or str(folder / "tokenizer"),
        preset=arguments.preset,
        model={
            "vocab_size": arguments.vocab_size,
            "hidden_size": arguments.hidden_size,
            "num_hidden_layers": arguments.layers,
            "num_attention_heads": arguments.heads,
        },
        sequence_length=arguments.seq,
        global_batch_size=arguments.batch,
        per_device_train_batch_size=min(arguments.at_once, arguments.batch),
        bf16=arguments.dtype == "bf16",
        torch_compile=name == "compiled",
        logging_steps=arguments.logging_steps,
        eval_steps=arguments.eval_steps,
        eval_sequences=arguments.eval_sequences,
        save_steps=arguments.save_steps,
        async_save=False,  # so that all of its time shows
    )
    config.optimizer.name = arguments.optimizer
    stage = Stage("pretrain", config.output_dir, config, {}, [])
    stage.begin()
    tokenizer = open_tokenizer(config.tokenizer, "tokenizer")
    pretrainer = Pretrainer(config, stage.folder, tokenizer, build_accelerator(config))
    pretrainer.span = Spans(pretrainer.accelerator.device)
    return pretrainer, stage


def run_steps(pretrainer: Pretrainer, stage: Stage, arguments: argparse.Namespace) -> dict[str, float]:
    """Train some more steps, validate and save.

    Returns:
        Seconds per step of every part, and of the whole step. Validations and checkpoints are divided by the usual
        number of steps between them.
    """
    spans: Spans = pretrainer.span
    pretrainer.config.max_steps = pretrainer.step + arguments.steps
    spans.reset()
    with contextlib.redirect_stdout(io.StringIO()):  # the lines of training
        pretrainer.train(stage)
    spans.stop()
    rare = {
        "evaluation": spans.seconds["evaluation"] / spans.counts["evaluation"] / arguments.eval_steps,
        "checkpointing": spans.seconds["checkpointing"] / spans.counts["checkpointing"] / arguments.save_steps,
    }
    step = (spans.wall - spans.seconds["evaluation"] - spans.seconds["checkpointing"]) / arguments.steps
    return {"step": step} | {name: spent / arguments.steps for name, spent in spans.seconds.items()} | rare


def summary(rounds: list[dict[str, float]], eager: list[dict[str, float]], pretrainer: Pretrainer, peak: float) -> dict:
    """The medians of one contestant."""
    step = statistics.median(times["step"] for times in rounds)
    shares = {}
    for part in ("forward", "backward", "optimizer", *OVERHEAD):
        whole = [times["step"] + times["evaluation"] + times["checkpointing"] for times in rounds]
        shares[part] = statistics.median(
            times[part] / all_of_it for times, all_of_it in zip(rounds, whole, strict=True)
        )
    throughput = pretrainer.throughput
    tokens_per_second = throughput.tokens_per_step / step
    return {
        "step_ms": round(step * 1000, 2),
        "tokens_per_second": round(tokens_per_second, 1),
        "mfu": round(tokens_per_second * throughput.operations_per_token / peak, 4),
        "ratio": round(statistics.median(e["step"] / o["step"] for e, o in zip(eager, rounds, strict=True)), 4),
        "overhead": round(sum(shares[part] for part in OVERHEAD), 4),
        "shares": {part: round(share, 5) for part, share in shares.items()},
    }


def main() -> None:
    arguments = parse_arguments()
    device = pick_device()
    arguments.dtype = arguments.dtype or ("bf16" if has_bf16(device) else "fp32")
    dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    names = ["eager", "compiled"] if arguments.compile else ["eager"]
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.data:
            write_random_data(Path(folder), arguments)
        runs = {name: build(name, Path(folder), arguments) for name in names}
        for pretrainer, stage in runs.values():  # compilation, caches, first touches
            run_steps(pretrainer, stage, arguments)
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        peak = 0.0
        for index in tqdm(range(arguments.rounds), unit="round", disable=None):
            for name in names[:: -1 if index % 2 else 1]:
                taken[name].append(run_steps(*runs[name], arguments))
            peak = max(peak, matrix_product_rate(device, dtype))
    figures = {name: summary(taken[name], taken["eager"], runs[name][0], peak) for name in names}
    parameters = runs["eager"][0].num_parameters

    conditions = {name: value for name, value in vars(arguments).items() if name not in ("data", "tokenizer")}
    conditions |= {
        "text": "shards" if arguments.data else "random",
        "parameters": parameters,
        "accelerate": accelerate.__version__,
    } | machine(device)
    where = f"{conditions['processor']}, {conditions['threads']} threads"
    rate = f"matrix product {peak / 1e12:.3f} TFLOP/s"
    print(f"{where}, {arguments.dtype}, {rate}, {parameters / 1e6:.1f}M parameters")
    columns = [column for column in figures["eager"] if column != "shares"]
    print(f"\n{'training':14}" + "".join(f"{column:>18}" for column in columns))
    for name, row in figures.items():
        print(f"{name:14}" + "".join(f"{row[column]:>18,}" for column in columns))
    print(f"\n{'shares':14}" + "".join(f"{part:>15}" for part in figures["eager"]["shares"]))
    for name, row in figures.items():
        print(f"{name:14}" + "".join(f"{share:>15.2%}" for share in row["shares"].values()))
    print()
    results = {"matmul_tflops": round(peak / 1e12, 4), "training": figures}
    print(json.dumps({"benchmark": "pretrain", "conditions": conditions} | results))


if __name__ == "__main__":
    main()
