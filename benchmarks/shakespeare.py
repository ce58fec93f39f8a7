"""Time to a target loss on tiny Shakespeare, character by character, with the real `scratch pretrain`.

    python -m benchmarks.shakespeare --data input.txt                     # or without --data, from the Hub
    python -m benchmarks.shakespeare --data input.txt --nanogpt path/to/nanoGPT --seeds 0 1 2
    python -m benchmarks.shakespeare --data input.txt --marks large --set max_steps=4000

Two targets:

- `small`: 1.88 with a model of 0.8M parameters, which nanoGPT's recipe for CPUs reaches in 2000 iterations (its README:
  4 layers of 128, block 64, batch 12). With --nanogpt that recipe runs in turn with ours, from a copy of the checkout.
- `large`: 1.4697 with recipes/shakespeare, which nanoGPT's README reports after three minutes on an A100.

The split is nanoGPT's: the first 90 % of the characters train, the rest validates. The loss is the mean over the whole
validation split in nats per character. Every character is scored once, in consecutive sequences of the trained length.
Seconds are those of the stage: training with its validations, checkpoints, plot and export, without the start of
Python; `command_seconds` include that. For nanoGPT they count from the moment its model exists to the end.

The last line is everything as JSON.
"""

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoTokenizer

from benchmarks.machine import conditions as machine
from benchmarks.stages import ROOT, scratch
from modeling_scratch import ScratchForCausalLM
from training.common.device import has_bf16, pick_device
from training.eval.measures.likelihood import sum_nats, windows

RECIPES = ROOT / "recipes" / "shakespeare"
TARGETS = {"small": 1.88, "large": 1.4697}
# Changes to the recipe. Not compiled, since compiling takes as long as the whole run.
SMALL = {
    "preset": "qwen3",
    "model.hidden_size": 128,
    "model.num_hidden_layers": 4,
    "model.num_attention_heads": 4,
    "model.hidden_dropout": 0,
    "sequence_length": 64,
    "global_batch_size": 12,
    "per_device_train_batch_size": 12,
    "max_steps": 185,
    "eval_steps": 185,
    "eval_sequences": 64,
    "save_steps": 185,
    "torch_compile": "false",
    "attn_implementation": "eager",
    "sample_prompts": "[]",
    "optimizer.learning_rate": 0.03,
    "optimizer.momentum": 0.85,
    "optimizer.embedding_learning_rate": 0.05,
    "optimizer.head_learning_rate": 0.02,
    "optimizer.adam_beta1": 0.8,
    "optimizer.warmup_steps": 0,
    "optimizer.decay_fraction": 0.8,
}
# https://github.com/karpathy/nanoGPT, README, "I only have a macbook"
NANOGPT = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 "
    "--n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)
NANOGPT_CONTEXT = 64
MODEL_EXISTS = "number of parameters"  # what nanoGPT prints then


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the text (default: karpathy/tiny_shakespeare from the Hub)")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT, to run in turn with the small target")
    parser.add_argument("--marks", nargs="+", default=["small", "large"], choices=TARGETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="recipe keys for all runs")
    return parser.parse_args()


def recipe(verb: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"config": RECIPES / f"{verb}.yaml"} | options


def make_shards(folder: Path, data: Path | None) -> str:
    """Make the tokenizer and shards of the recipe; return the text of nanoGPT's validation split."""
    source = {"data.path": data.resolve()} if data else {}
    paths = {"output_dir": folder / "data", "tokenizer": folder / "tokenizer"}
    scratch("tokenizer", recipe("tokenizer", source | {"output_dir": folder / "tokenizer"}))
    scratch("prepare", recipe("prepare", source | paths))
    if data:
        text = data.read_text()
    else:
        from datasets import load_dataset

        text = load_dataset("karpathy/tiny_shakespeare", split="train")[0]["text"]
    return text[int(len(text) * 0.9) :]


def run_ours(folder: Path, options: dict[str, Any], seed: int, validation: str) -> dict[str, float]:
    output = folder / "model"
    paths = {"data": folder / "data", "tokenizer": folder / "tokenizer", "output_dir": output}
    command = scratch("pretrain", recipe("pretrain", options | paths | {"seed": seed}))
    provenance = json.loads((output / "provenance.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(output)
    tokens = np.array(tokenizer(validation, add_special_tokens=False)["input_ids"])
    model = ScratchForCausalLM.from_pretrained(output).to(pick_device()).eval()
    cuts = windows(len(tokens), model.config.max_position_embeddings)
    nats = sum_nats(model, tokens, cuts, np.array([len(tokens)]), tokenizer.eos_token_id).item()
    shutil.rmtree(output)
    return {
        "seconds": provenance["seconds"],
        "command_seconds": round(command, 1),
        "loss": round(nats / len(tokens), 4),
        "tokens": provenance["metrics"]["tokens"],
        "parameters": provenance["metrics"]["parameters"],
    }


def run_nanogpt(folder: Path, checkout: Path, data: Path) -> dict[str, float]:
    """Run nanoGPT's recipe for CPUs in a copy of the checkout; return its loss over the whole validation split."""
    copy = folder / "nanoGPT"
    if not copy.exists():
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "assets"))
        shutil.copy(data, copy / "data" / "shakespeare_char" / "input.txt")
        subprocess.run([sys.executable, "data/shakespeare_char/prepare.py"], cwd=copy, check=True, capture_output=True)
    started, built = time.monotonic(), None
    command = [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py", *NANOGPT.split()]
    with subprocess.Popen(command, cwd=copy, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            built = built or (time.monotonic() if line.startswith(MODEL_EXISTS) else None)
    ended = time.monotonic()
    if process.returncode or built is None:
        raise SystemExit("nanoGPT's train.py failed; run it in the checkout to see the error")

    specification = importlib.util.spec_from_file_location("nanogpt", copy / "model.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    checkpoint = torch.load(copy / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model = module.GPT(module.GPTConfig(**checkpoint["model_args"])).eval()
    model.load_state_dict(checkpoint["model"])
    tokens = torch.from_numpy(np.fromfile(copy / "data" / "shakespeare_char" / "val.bin", dtype=np.uint16).astype(int))
    nats = 0.0
    with torch.inference_mode():  # the first character is not scored: it has no context
        for start in range(0, len(tokens) - 1, NANOGPT_CONTEXT):
            sequence = tokens[start : start + NANOGPT_CONTEXT + 1][None]  # (1, seq + 1)
            nats += model(sequence[:, :-1], sequence[:, 1:])[1].item() * (sequence.shape[1] - 1)
    return {
        "seconds": round(ended - built, 1),
        "command_seconds": round(ended - started, 1),
        "loss": round(nats / (len(tokens) - 1), 4),
        "tokens": 2000 * 12 * NANOGPT_CONTEXT,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def summary(runs: list[dict[str, float]], target: float) -> dict[str, Any]:
    losses = [run["loss"] for run in runs]
    return {
        "loss": round(statistics.fmean(losses), 4),
        "spread": round(statistics.stdev(losses), 4) if len(losses) > 1 else None,
        "target": target,
        "reached": sum(loss <= target for loss in losses),
        "runs": len(runs),
        "seconds": statistics.median(run["seconds"] for run in runs),
        "command_seconds": statistics.median(run["command_seconds"] for run in runs),
        "tokens": runs[0]["tokens"],
        "parameters": runs[0]["parameters"],
        "each": runs,
    }


def main() -> None:
    arguments = parse_arguments()
    if arguments.nanogpt and not arguments.data:
        raise SystemExit("--nanogpt needs the text in a file; add --data FILE")
    overrides = dict(pair.split("=", 1) for pair in getattr(arguments, "set"))
    names = list(arguments.marks)
    if arguments.nanogpt and "small" in names:
        names.insert(names.index("small") + 1, "nanoGPT")
    runs: dict[str, list] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        validation = make_shards(folder, arguments.data)
        for seed in tqdm(arguments.seeds, desc="seeds"):
            for name in names:
                if name == "nanoGPT":
                    run = run_nanogpt(folder, arguments.nanogpt, arguments.data)
                else:
                    settings = (SMALL if name == "small" else {}) | overrides
                    run = run_ours(folder, settings, seed, validation)
                tqdm.write(f"{name}, seed {seed}: loss {run['loss']:.4f} after {run['seconds']:.0f} s")
                runs[name].append(run)

    device = pick_device()
    results = {name: summary(each, TARGETS.get(name, TARGETS["small"])) for name, each in runs.items()}
    if "nanoGPT" in results:
        ratios = [
            theirs["seconds"] / ours["seconds"] for ours, theirs in zip(runs["small"], runs["nanoGPT"], strict=True)
        ]
        results["small"]["times_as_fast_as_nanogpt"] = round(statistics.median(ratios), 2)
    columns = ("loss", "spread", "target", "reached", "runs", "seconds", "command_seconds", "tokens", "parameters")
    conditions = {"seeds": arguments.seeds, "set": overrides, "bf16": has_bf16(device)} | machine(device)
    print(f"{conditions['processor']}, {conditions['threads']} threads\n")
    print(f"{'':10}" + "".join(f"{column:>17}" for column in columns))
    for name, row in results.items():
        print(f"{name:10}" + "".join(f"{row[column] if row[column] is not None else '':>17}" for column in columns))
    if "nanoGPT" in results:
        print(f"\nsmall is {results['small']['times_as_fast_as_nanogpt']} times as fast as nanoGPT")
    print()
    print(json.dumps({"benchmark": "shakespeare", "conditions": conditions, "results": results}))


if __name__ == "__main__":
    main()
