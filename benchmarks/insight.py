"""Cost of captures of attention (`insight`) in a pretraining run: share of its time, and size of the record.

    python -m benchmarks.insight                                  # recipes/quickstart, under a minute on two cores
    python -m benchmarks.insight --recipe recipes/shakespeare/pretrain.yaml --vocab-size 256

Training steps and captures take turns, by the loop of `scratch pretrain` itself, on random tokens. A step and a capture
are medians over the rounds. The share is that of all captures of the recipe's run in the time of its steps and captures
together, without validations and checkpoints. The last line is all of it as JSON.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.machine import conditions as machine
from benchmarks.pretrain import write_random_data
from training.common.device import seconds
from training.common.shipped import with_shipped
from training.insight.record import INSIGHT
from training.model_io.tokenizers import open_tokenizer
from training.pretraining.accelerator import build_accelerator
from training.pretraining.config import PretrainConfig
from training.pretraining.loop import Pretrainer
from training.stages.recipe import build
from training.stages.yaml_values import read_yaml


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart/pretrain.yaml", help="of scratch pretrain")
    parser.add_argument("--vocab-size", type=int, default=4096, help="rows of the embedding")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="training steps per round, beside one capture")
    return parser.parse_args()


def build_pretrainer(folder: Path, arguments: argparse.Namespace) -> Pretrainer:
    """The loop of the recipe, with captures on, on random tokens."""
    recipe = read_yaml(str(with_shipped(Path(arguments.recipe))))
    recipe |= {"output_dir": str(folder / "run"), "data": str(folder / "data"), "tokenizer": str(folder / "tokenizer")}
    recipe["model"] = recipe.get("model", {}) | {"vocab_size": arguments.vocab_size}
    recipe["insight"] = recipe.get("insight", {}) | {"enabled": True}
    config = build(PretrainConfig, recipe, arguments.recipe)
    arguments.batch, arguments.seq, arguments.eval_sequences = config.global_batch_size, config.sequence_length, 8
    write_random_data(folder, arguments)
    tokenizer = open_tokenizer(config.tokenizer, "tokenizer")
    return Pretrainer(config, folder, tokenizer, build_accelerator(config))


def measure(pretrainer: Pretrainer, arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of a step and of a capture, in each round."""
    steps, captures, device = [], [], pretrainer.accelerator.device
    pretrainer.train_step()  # fills the caches, as the first capture in `begin` does
    for _ in range(arguments.rounds):
        spent = seconds(lambda: [pretrainer.train_step() for _ in range(arguments.steps)], device)
        steps.append(spent / arguments.steps)
        captures.append(seconds(lambda: pretrainer.insight.capture(pretrainer.model, pretrainer.step), device))
    return steps, captures


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pretrainer = build_pretrainer(folder, arguments)
        pretrainer.insight.begin(folder / INSIGHT, pretrainer.model, 0)
        steps, captures = (statistics.median(rounds) for rounds in measure(pretrainer, arguments))
        size = sum(path.stat().st_size for path in (folder / INSIGHT).rglob("*") if path.is_file())
    count, max_steps = len(pretrainer.insight.steps), pretrainer.config.max_steps
    share = count * captures / (count * captures + max_steps * steps)
    megabytes = size / (arguments.rounds + 1) * count / 1e6
    print(f"a step        {1000 * steps:8.1f} ms x {max_steps}")
    print(f"a capture     {1000 * captures:8.1f} ms x {count}: {share:.2%} of the time")
    print(f"the record    {megabytes:8.1f} MB")
    result = {"step_ms": 1000 * steps, "capture_ms": 1000 * captures, "captures": count, "steps": max_steps}
    result |= {"share": share, "record_mb": megabytes}
    rounded = {key: float(f"{value:.4g}") for key, value in result.items()}
    conditions = machine(pretrainer.accelerator.device) | {"recipe": arguments.recipe}
    print(json.dumps({"benchmark": "insight", "conditions": conditions, **rounded}))


if __name__ == "__main__":
    main()
