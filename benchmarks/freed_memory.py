"""Page faults of a fine-tuning step, with freed memory kept for the next tensors and with the C library's own rule.

    python -m benchmarks.freed_memory
    python -m benchmarks.freed_memory --vocab-size 32768 --batch-size 4

The step is that of a trainer that makes all logits at once, as TRL's do: forward, log-softmax, backward, AdamW, in bf16
where the processor has it. Both kinds run in separate processes and take turns (`training.machine.memory`).
Reported are medians over the rounds: milliseconds of a step, those of them in the kernel, its page faults, and the
peak memory of the process. The last line is all of it as JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.machine import conditions
from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.device import has_bf16
from training.machine.memory import keep_freed_memory

KINDS = ("kept", "returned")
STEPS = 3  # of a turn


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=32, help="sequences; for DPO two for each pair")
    parser.add_argument("--length", type=int, default=244, help="tokens of a sequence")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def work(arguments: argparse.Namespace) -> None:
    """Take a turn at each line of stdin, and print the figures of its steps."""
    if arguments.worker == "kept":
        keep_freed_memory()
    config = ScratchConfig(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=max(1, arguments.hidden_size // 96),
        max_position_embeddings=arguments.length,
        attn_implementation="eager",
    )
    model = ScratchForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(arguments.vocab_size, (arguments.batch_size, arguments.length))
    device = torch.device("cpu")
    for _ in sys.stdin:
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(device)):
                logits = model(input_ids=tokens).logits[:, :-1]
            log_probs = torch.log_softmax(logits.float(), -1).gather(-1, tokens[:, 1:, None])
            (-log_probs.mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
            del logits, log_probs
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
        row = {
            "ms": 1000 * seconds / STEPS,
            "kernel_ms": 1000 * (after.ru_stime - before.ru_stime) / STEPS,
            "faults": (after.ru_minflt - before.ru_minflt) / STEPS,
            "peak_mb": after.ru_maxrss / 1000,
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        return work(arguments)
    command = [sys.executable, "-m", "benchmarks.freed_memory", *sys.argv[1:], "--worker"]
    workers = {
        kind: subprocess.Popen([*command, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for kind in KINDS
    }
    rows = {kind: [] for kind in KINDS}
    try:
        for _ in range(1 + arguments.rounds):  # the first is for warming up
            for kind, worker in workers.items():
                worker.stdin.write("\n")
                worker.stdin.flush()
                rows[kind].append(json.loads(worker.stdout.readline()))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    medians = {
        kind: {key: round(statistics.median(row[key] for row in turns[1:]), 1) for key in turns[0]}
        for kind, turns in rows.items()
    }
    for kind, values in medians.items():
        print(f"{kind}: " + ", ".join(f"{value:,.0f} {key}" for key, value in values.items()))
    ratio = statistics.median(
        returned["ms"] / kept["ms"] for kept, returned in zip(rows["kept"][1:], rows["returned"][1:], strict=True)
    )
    print(f"keeping is {ratio:.2f} times as fast")
    result = {"benchmark": "freed_memory", "conditions": conditions(torch.device("cpu")) | vars(arguments)}
    print(json.dumps(result | {"cores": os.cpu_count(), "medians": medians, "ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
