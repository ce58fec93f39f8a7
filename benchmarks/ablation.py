"""Ablations: the same text, tokens and sizes, with one choice of model, optimizer or schedule changed at a time.

    python -m benchmarks.ablation --data 'books/*.jsonl.gz' --seeds 0 1
    python -m benchmarks.ablation --data input.txt --rows adamw-cosine qwen3 --steps 1000

Every row is a run of the real `scratch pretrain`. The first row is the `scratch` preset with Muon and the schedule of
our recipes; every other row changes what its name says. The result is the validation loss in bits per byte, after the
same number of tokens. Differences within twice the spread of the seeds are not significant. Rows take turns within a
seed, --jobs at a time on equal parts of the CPU. The last line is everything as JSON.
"""

import argparse
import json
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.machine import conditions as machine
from benchmarks.stages import scratch
from modeling_scratch import ScratchForCausalLM
from training.common.device import pick_device
from training.data.shards import TokenShards, open_shards
from training.eval.measures.bits_per_byte import measure_split

BASELINE = "scratch"


def adamw(learning_rate: float, **others: Any) -> dict[str, Any]:
    """The options of AdamW with one learning rate for everything, as is usual."""
    groups = ("learning_rate", "embedding_learning_rate", "head_learning_rate", "scalar_learning_rate")
    rates = {f"optimizer.{group}": learning_rate for group in groups}
    return {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1, "optimizer.warmup_steps": 20, **rates, **others}


COSINE = {"optimizer.schedule": "cosine", "optimizer.final_fraction": 0.1}
ROWS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    # optimizer and schedule
    "adamw-cosine-1e-3": adamw(1e-3, **COSINE),
    "adamw-cosine-3e-3": adamw(3e-3, **COSINE),
    "adamw-cosine-6e-3": adamw(6e-3, **COSINE),
    "adamw-wsd-3e-3": adamw(3e-3),
    "adamw-own-rates": {"optimizer.name": "adamw", "optimizer.learning_rate": 3e-3},
    "muon-cosine": COSINE,
    "muon-0.01": {"optimizer.learning_rate": 0.01},
    "muon-0.04": {"optimizer.learning_rate": 0.04},
    "decay-0.2": {"optimizer.decay_fraction": 0.2},
    "decay-0.8": {"optimizer.decay_fraction": 0.8},
    "weight-decay-0.2": {"optimizer.weight_decay": 0.2},
    "batch-half": {"global_batch_size": 0.5, "max_steps": 2},
    "batch-double": {"global_batch_size": 2, "max_steps": 0.5},
    # options of the model
    "swiglu": {"model.mlp_type": "swiglu"},
    "gelu": {"model.mlp_type": "gelu"},
    "no-qk-norm": {"model.qk_norm": "false"},
    "no-softcap": {"model.final_logit_softcapping": "null"},
    "softcap-30": {"model.final_logit_softcapping": 30},
    "embedding-shortcut": {"model.embedding_shortcut": "true"},
    "no-zero-init": {"model.zero_init_projections": "false"},
    "layer-norm": {"model.norm_type": "layer", "model.qk_norm": "true"},
    "tied": {"model.tie_word_embeddings": "true", "optimizer.embedding_learning_rate": 0.004},
    "one-kv-head": {"model.num_key_value_heads": 1},
    "no-positions": {"model.position_type": "none"},
    "learned-positions": {"model.position_type": "learned"},
    # whole architectures, with the same optimizer
    "qwen3": {"preset": "qwen3"},
    "llama": {"preset": "llama"},
    "gpt2": {"preset": "gpt2", "optimizer.embedding_learning_rate": 0.004},
    # where most people start: Llama and AdamW with one learning rate
    "llama-adamw-cosine-1e-3": {"preset": "llama"} | adamw(1e-3, **COSINE),
    "llama-adamw-cosine-3e-3": {"preset": "llama"} | adamw(3e-3, **COSINE),
    "llama-adamw-cosine-6e-3": {"preset": "llama"} | adamw(6e-3, **COSINE),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="text: a file, a folder, a glob, or a Hub data set")
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), choices=ROWS, help="rows to run besides the first, which always runs"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="sequences per step")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--max-bytes", type=int, default=10_000_000, help="bytes of text to read")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (small models: as many as cores)")
    return parser.parse_args()


def options_of(row: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a row. Its batch size and steps are factors on those of the first row."""
    options = {
        "preset": "scratch",
        "model.hidden_size": arguments.hidden_size,
        "model.num_hidden_layers": arguments.layers,
        "model.num_attention_heads": arguments.heads,
        "model.zero_init_projections": "true",
        "sequence_length": arguments.seq,
        "global_batch_size": arguments.batch,
        "max_steps": arguments.steps,
        "optimizer.warmup_steps": 10,
        "optimizer.decay_fraction": 0.5,
        "torch_compile": str(arguments.compile).lower(),
        "eval_sequences": 16,
    }
    factors = {key: ROWS[row][key] for key in ("global_batch_size", "max_steps") if key in ROWS[row]}
    options |= ROWS[row] | {key: int(options[key] * factor) for key, factor in factors.items()}
    never = 10 * options["max_steps"]
    return options | {
        "per_device_train_batch_size": options["global_batch_size"],
        "eval_steps": never,
        "save_steps": never,
    }


def score(model_dir: Path, text: TokenShards, context: int) -> float:
    """Bits per byte of a model over a whole text."""
    model = ScratchForCausalLM.from_pretrained(model_dir).to(pick_device()).eval()
    return measure_split(model, text, context, batch_size=16)[0].value


def run(folder: Path, row: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    output = folder / f"{row}-{seed}"
    paths = {"data": folder / "data", "tokenizer": folder / "tokenizer", "output_dir": output}
    scratch("pretrain", options_of(row, arguments) | paths | {"seed": seed}, torch.get_num_threads())
    provenance = json.loads((output / "provenance.json").read_text())
    return {
        "bits_per_byte": score(output, open_shards(folder / "data", "validation"), arguments.seq),
        "tokens_per_second": provenance["metrics"]["tokens_per_second"],
        "parameters": provenance["metrics"]["parameters"],
    }


def main() -> None:
    arguments = parse_arguments()
    rows = [BASELINE, *(row for row in arguments.rows if row != BASELINE)]
    runs: dict[str, list] = {row: [] for row in rows}
    torch.set_num_threads(max(1, torch.get_num_threads() // arguments.jobs))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = {"data.path": arguments.data, "data.max_bytes": arguments.max_bytes, "data.validation_fraction": 0.03}
        scratch("tokenizer", data | {"output_dir": folder / "tokenizer", "vocab_size": arguments.vocab_size})
        scratch("prepare", data | {"output_dir": folder / "data", "tokenizer": folder / "tokenizer"})
        turns = [(row, seed) for seed in arguments.seeds for row in rows]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            results = pool.map(lambda turn: run(folder, *turn, arguments), turns)
            for (row, seed), result in zip(turns, tqdm(results, total=len(turns), unit="run"), strict=True):
                tqdm.write(f"{row:24} seed {seed}: {result['bits_per_byte']:.4f} bits per byte")
                runs[row].append(result)

    def mean(row: str) -> float:
        return statistics.fmean(result["bits_per_byte"] for result in runs[row])

    table = {}
    for row in rows:
        values = [result["bits_per_byte"] for result in runs[row]]
        table[row] = {
            "bits_per_byte": round(mean(row), 4),
            "spread": round(statistics.stdev(values), 4) if len(values) > 1 else None,
            "difference_%": round(100 * (mean(row) / mean(BASELINE) - 1), 2),
            "tokens_per_second": round(statistics.median(result["tokens_per_second"] for result in runs[row])),
            "parameters": runs[row][0]["parameters"],
            "each": [round(value, 4) for value in values],
        }
    tokens = arguments.batch * arguments.seq * arguments.steps
    print(f"\n{tokens:,} tokens a run, seeds {arguments.seeds}\n")
    print("| row | bits per byte | spread | to the first | parameters |\n|---|---|---|---|---|")
    for row, figures in sorted(table.items(), key=lambda item: item[1]["bits_per_byte"]):
        spread = "" if figures["spread"] is None else f"{figures['spread']:.4f}"
        name = f"**{row}**" if row == BASELINE else row
        print(
            f"| {name} | {figures['bits_per_byte']:.4f} | {spread} | {figures['difference_%']:+.2f} % "
            f"| {figures['parameters'] / 1e6:.2f}M |"
        )
    conditions = vars(arguments) | machine(pick_device())
    print()
    print(json.dumps({"benchmark": "ablation", "conditions": conditions, "rows": table}))


if __name__ == "__main__":
    main()
