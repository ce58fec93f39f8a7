"""The cost of growing: time and memory against size, for every part of the pipeline, as docs/scaling.md has them.

    python -m benchmarks.scaling --out runs/scaling.json                          # everything, on an idle machine
    python -m benchmarks.scaling --out runs/scaling.json --only training data     # these groups
    python -m benchmarks.scaling --out runs/scaling.json --page docs/scaling.md   # and rewrite the page's tables

- training: a step of `scratch pretrain` against parameters, sequence length, vocabulary and batch, beside what
  `scratch plan --calibrate` predicts.
- data: `scratch tokenizer`, `scratch prepare`, near duplicates and shuffling against bytes, documents and tokens.
- use: `scratch evaluate` against items, `scratch serve` against simultaneous requests, the arena against voters.

A point is the median of several repetitions. --out keeps every point: the same command resumes, and measures again
only what is missing. A power law is fitted to the longest run of points, up to the last one, that it describes within a
tenth. Printed are conditions, tables and fits in Markdown; the last line is everything as JSON. The pictures lie beside
the page, or else beside --out.

`--clock processor` takes processor time, for a machine that other programs use too: with one thread it is what a step
takes alone. `--longest` ends a curve at the first point whose repetition takes more seconds, for a slow machine.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import scaling_data, scaling_training, scaling_use
from benchmarks.machine import conditions as machine
from benchmarks.scaling_curves import CLOCKS, Curve, Point, draw, law_table, panel_table
from training.common.files import write_whole

GROUPS = {module.GROUP: module.curves for module in (scaling_training, scaling_data, scaling_use)}
BLOCK = re.compile(r"(<!-- scaling: (?!end -->)([^>]*?) -->\n).*?(?=<!-- scaling: end -->)", re.DOTALL)
CLOCK_NAMES = {"wall": "wall time", "processor": "processor time"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file of all points")
    parser.add_argument("--only", nargs="+", default=list(GROUPS), choices=GROUPS, help="groups to measure")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--longest", type=float, default=60, metavar="SECONDS", help="of a repetition")
    parser.add_argument("--page", type=Path, metavar="FILE", help="rewrite its tables and pictures")
    parser.add_argument("--small", action="store_true", help="one or two tiny points of each curve, as in the tests")
    return parser.parse_args()


class Results:
    """The points measured so far, in a file that is whole after every point.

    Args:
        conditions: under which all of them are measured.

    Attributes:
        points: by the title of a curve and by size, in ascending order: quantities, `repetition_seconds` on the wall
            clock, and `spent_seconds` for the whole point.

    Raises:
        SystemExit: the file has points from other conditions.
    """

    def __init__(self, file: Path, conditions: dict[str, Any]):
        self.file, self.conditions = file, conditions
        self.points: dict[str, dict[str, Point]] = {}
        if file.exists():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["conditions"] != conditions:
                changed = [key for key in conditions if found["conditions"].get(key) != conditions[key]]
                raise SystemExit(
                    f"--out: {file} was measured with another {', '.join(changed)}; name another file, or delete it"
                )
            self.points = found["points"]

    def measure(self, curve: Curve, size: int, folder: Path) -> Point:
        """The point of a size, measured unless it is there."""
        points = self.points.setdefault(curve.title, {})
        if str(size) not in points:
            repetitions, began = [], time.perf_counter()
            for _ in range(curve.rounds):
                repetitions.append(curve.measure(size, folder))
            spent = time.perf_counter() - began
            point = {key: statistics.median(each[key] for each in repetitions) for key in repetitions[0]}
            points[str(size)] = point | {"repetition_seconds": spent / curve.rounds, "spent_seconds": spent}
            self.points[curve.title] = {key: points[key] for key in sorted(points, key=int)}
            write_whole(self.file, json.dumps(self.as_dictionary(), indent=1) + "\n")
        return self.points[curve.title][str(size)]

    def as_dictionary(self) -> dict[str, Any]:
        """For JSON."""
        return {"benchmark": "scaling", "conditions": self.conditions, "points": self.points}


def measure_all(curves: list[Curve], results: Results, longest: float, small: bool) -> None:
    """Measure what is missing, each curve from its smallest size to its largest, or to one that takes too long."""
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(curves), unit="curve", disable=None) as bar:
        for curve in curves:
            for size in curve.small if small else curve.sizes:
                bar.set_postfix_str(f"{curve.title}, {size:,}")
                if results.measure(curve, size, Path(folder))["repetition_seconds"] > longest:
                    break
            bar.update()


def describe(conditions: dict[str, Any]) -> str:
    """The conditions in a sentence."""
    threads = f"{conditions['threads']} thread" + "s" * (conditions["threads"] > 1)
    where = "" if conditions["clock"] == "wall" else " beside other programs"
    versions = f"torch {conditions['torch']}, transformers {conditions['transformers']}"
    return f"{conditions['processor']}, {threads}{where}, {CLOCK_NAMES[conditions['clock']]}, {versions}"


def blocks(curves: list[Curve], results: Results) -> dict[str, str]:
    """What the page shows, by the names of its blocks: conditions, the points of each panel, the fits of each group."""
    found = {"conditions": f"{describe(results.conditions)}.\n"}
    for group in GROUPS:
        members = [curve for curve in curves if curve.group == group and results.points.get(curve.title)]
        if members:
            found[f"{group}, exponents"] = law_table(members, results.points)
        for panel in dict.fromkeys(curve.panel for curve in members):
            of_panel = [curve for curve in members if curve.panel == panel]
            found[f"{group}, {panel}"] = panel_table(of_panel, results.points)
    spent = {
        group: sum(
            point["spent_seconds"]
            for title, points in results.points.items()
            if title.startswith(f"{group}:")
            for point in points.values()
        )
        for group in GROUPS
    }
    rows = "".join(f"| {group} | {seconds / 60:.1f} |\n" for group, seconds in spent.items() if seconds)
    return found | {"minutes": f"| group | minutes to measure |\n|---|---:|\n{rows}"}


def rewrite(page: Path, tables: dict[str, str]) -> None:
    """Put the tables between the comments of the page that name them.

    Raises:
        SystemExit: the page names a table that there is not, or lacks one.
    """
    text = page.read_text(encoding="utf-8")
    named = [name for _, name in BLOCK.findall(text)]
    if different := set(named) ^ set(tables):
        raise SystemExit(f"--page: {page} and the tables measured differ in: {', '.join(sorted(different))}")
    write_whole(page, BLOCK.sub(lambda match: f"{match[1]}\n{tables[match[2]]}\n", text))


def draw_all(folder: Path, curves: list[Curve], results: Results) -> None:
    """A picture of each group, `scaling_GROUP.png`."""
    note = f"{describe(results.conditions)}. Lines: fitted power laws, over the range that they hold."
    for group in GROUPS:
        members = [curve for curve in curves if curve.group == group]
        if any(results.points.get(curve.title) for curve in members):
            draw(folder / f"scaling_{group}.png", members, results.points, note)


def main() -> None:
    arguments = parse_arguments()
    conditions = {"clock": arguments.clock, "small": arguments.small} | machine(torch.device("cpu"))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.out, conditions)
    curves = [curve for group in GROUPS.values() for curve in group(arguments.clock)]
    wanted = [curve for curve in curves if curve.group in arguments.only]
    measure_all(wanted, results, arguments.longest, arguments.small)
    tables = blocks(curves, results)
    for name, table in tables.items():
        print(f"\n{name}\n\n{table}", end="")
    draw_all(arguments.page.parent if arguments.page else arguments.out.parent, curves, results)
    if arguments.page:
        rewrite(arguments.page, tables)
    print(f"\nwrote {arguments.out}")
    print(json.dumps(results.as_dictionary()))


if __name__ == "__main__":
    main()
