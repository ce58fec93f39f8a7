"""Seeds: a recipe folder run several times with the seed of every stage varied, and the spread of its scores.

    python -m benchmarks.seeds recipes/quickstart --seeds 0 1 2 --options minutes=null
    python -m benchmarks.seeds recipes/arithmetic --data 'python recipes/arithmetic/sums.py --seed {seed}'

The standard error of `scratch evaluate` is that of the sample of questions, and the seed of one stage varies that stage
alone. Here each run draws its data, initial weights, batches and questions anew. `--variants bf16 fp32:sft.bf16=false`
repeats every seed with further options of `scratch run`. Finished stages are skipped, so that the same command
continues a stopped study. The last line is everything as JSON.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.machine import conditions as machine
from benchmarks.stages import ROOT
from training.common.device import pick_device


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="recipe folder with an evaluate.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--options", nargs="*", default=[], help="options of `scratch run`, as KEY=VALUE")
    parser.add_argument(
        "--variants", nargs="+", default=["given"], help="NAME or NAME:KEY=VALUE,KEY=VALUE; each is run with every seed"
    )
    parser.add_argument("--data", help="command run first in the folder of each run; {seed} stands for the seed")
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"), help="folder of all runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, on equal parts of the CPU")
    return parser.parse_args()


def run(arguments: argparse.Namespace, variant: str, seed: int, threads: int) -> dict[str, Any]:
    """Run the recipe in its own folder.

    Returns:
        What `scratch evaluate` wrote: `models`, with the figures of each.

    Raises:
        SystemExit: a stage failed; log.txt in the folder says why.
    """
    name, _, own_options = variant.partition(":")
    place = (arguments.folder / f"{name}-{seed}").resolve()
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "recipes").exists():
        (place / "recipes").symlink_to(ROOT / "recipes")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", "PYTHONPATH": path_with(ROOT)}
    recipe = arguments.recipe.resolve().relative_to(ROOT)
    options = [*arguments.options, *filter(None, own_options.split(",")), f"seed={seed}"]
    if "seed:" in (ROOT / recipe / "prepare.yaml").read_text():
        options.append(f"data.seed={seed}")
    commands = [shlex.split(arguments.data.format(seed=seed))] if arguments.data else []
    commands += [[sys.executable, "-m", "training", "run", str(recipe), *(f"--{option}" for option in options)]]
    with (place / "log.txt").open("a") as log:
        for command in commands:
            if subprocess.run(command, cwd=place, env=environment, stdout=log, stderr=log).returncode:
                raise SystemExit(f"{shlex.join(command)} failed, see {place / 'log.txt'}")
    (results,) = place.glob("runs/*/evaluate/results.json")
    return json.loads(results.read_text())["models"]


def path_with(folder: Path) -> str:
    """PYTHONPATH with a folder in front, so that every run uses the code of this checkout."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


def scores(models: dict[str, Any]) -> dict[str, dict[str, float]]:
    """`{measure: {model: value}}` of one run; shares in percent."""
    table: dict[str, dict[str, float]] = {}
    for model, result in models.items():
        for measures in result["figures"].values():
            for name, figures in measures.items():
                for figure, entry in figures.items():
                    scale = 100 if entry["unit"] == "share" else 1
                    table.setdefault(f"{name}: {figure}", {})[model] = scale * entry["value"]
    return table


def summary(values: list[float]) -> str:
    """The mean, and the lowest and highest value."""
    return f"{statistics.fmean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def main() -> None:
    arguments = parse_arguments()
    threads = max(1, torch.get_num_threads() // arguments.jobs)
    turns = [(variant, seed) for variant in arguments.variants for seed in arguments.seeds]
    table: dict[str, list[dict[str, dict[str, float]]]] = {variant: [] for variant in arguments.variants}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda turn: run(arguments, *turn, threads), turns)
        for (variant, seed), models in zip(turns, tqdm(results, total=len(turns), unit="run"), strict=True):
            tqdm.write(f"{variant}, seed {seed}: done")
            table[variant].append(scores(models))

    for variant, runs in table.items():
        models = list(next(iter(runs[0].values())))
        steps = list(zip(models, models[1:], strict=False))
        heads = [*models, *(f"{old} → {new}" for old, new in steps)]
        print(f"\n{variant}: mean (lowest to highest) of seeds {arguments.seeds}\n")
        print(f"| measure | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
        for measure in runs[0]:
            cells = [summary([run[measure][model] for run in runs]) for model in models]
            cells += [summary([run[measure][new] - run[measure][old] for run in runs]) for old, new in steps]
            print(f"| {measure} | {' | '.join(cells)} |")
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    print()
    print(json.dumps({"benchmark": "seeds", "conditions": settings | machine(pick_device()), "runs": table}))


if __name__ == "__main__":
    main()
