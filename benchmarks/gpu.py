"""Everything that only a GPU can show, as one report in Markdown and JSON: correctness, speed, memory, predictions.

    python -m benchmarks.gpu runs/gpu                # in under nine minutes on an H200
    python -m benchmarks.gpu runs/gpu                # again: continues, and repeats what failed
    python -m benchmarks.gpu runs/gpu --small        # the same with tiny models, in a minute on a CPU

Correctness: bf16 against fp32, every attention implementation, compiled layers, generation against the CPU's, and a
pretraining that is killed and resumed. Speed: MFU at 124M and 1B parameters by sequence length, and generation against
the memory's bandwidth. Memory: the loss at a vocabulary of 131,072. Predictions: what `scratch plan` says about memory
and time, against what was measured.

The report is written after every section, so a call may end at any moment. The next one with the same folder runs the
sections that are missing, then those that failed. It needs torch, transformers and accelerate, not TRL. The exit code
is 1 if a check or a section failed or is missing.
"""

import argparse
import json
import math
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_correctness, gpu_memory, gpu_speed
from benchmarks.gpu_correctness import Row, Setting
from benchmarks.machine import conditions as machine
from training.common.device import pick_device
from training.common.files import write_whole
from training.common.tables import as_markdown

MINUTES = 8.0  # after which no section starts; the longest takes less than one


@dataclass(frozen=True)
class Section:
    """A part of the report that is measured and written separately. Those of one title share a table."""

    title: str
    case: str
    run: Callable[[], list[Row]]

    @property
    def key(self) -> str:
        """In the JSON file."""
        return f"{self.title}: {self.case}" if self.case else self.title


def sections(setting: Setting) -> list[Section]:
    """All sections, in the order in which they run."""
    checks = {
        "Precision": gpu_correctness.precision,
        "Attention": gpu_correctness.attention,
        "Generation": gpu_correctness.generation,
        "Resumption": gpu_correctness.resumption,
    }
    # On a CPU the compiler alone takes most of a minute.
    checks |= {} if setting.small else {"Compilation": gpu_correctness.compilation}
    found = [Section("Device", "", partial(gpu_speed.device_rates, setting))]
    found += [Section(title, "", partial(run, setting)) for title, run in checks.items()]
    for name in gpu_speed.models(setting):
        for length in gpu_speed.lengths(setting):
            run = partial(gpu_speed.training, setting, name, length)
            found.append(Section("Training", f"{name}, {length} tokens", run))
        for batch in gpu_speed.batches(setting):
            run = partial(gpu_speed.decoding, setting, name, batch)
            found.append(Section("Decoding", f"{name}, batch {batch}", run))
    found.append(Section("Loss at a large vocabulary", "", partial(gpu_memory.loss_memory, setting)))
    for variant in gpu_memory.cases(setting):
        found.append(Section("Planned memory", variant.name, partial(gpu_memory.planned, setting, variant)))
    return found


class Report:
    """The results so far, in `gpu.json` and `gpu.md` of a folder.

    Raises:
        SystemExit: the folder has results of another device or other versions.
    """

    def __init__(self, folder: Path, conditions: dict[str, Any]):
        self.folder, self.results = folder, {}
        file = folder / "gpu.json"
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["conditions"] != conditions:
                raise SystemExit(f"{file}: the results of another device or other versions; choose another folder")
            self.results = content["sections"]
        self.conditions = conditions

    def open_sections(self, all_sections: list[Section]) -> list[Section]:
        """Those to run: the missing ones first, then those that failed."""
        failed = [section for section in all_sections if "error" in self.results.get(section.key, {})]
        return [section for section in all_sections if section.key not in self.results] + failed

    def note(self, key: str, **result: Any) -> None:
        """Keep a section's result, and write both files."""
        self.results[key] = result
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"benchmark": "gpu", "conditions": self.conditions, "sections": self.results}
        write_whole(self.folder / "gpu.json", json.dumps(content, indent=2) + "\n")
        write_whole(self.folder / "gpu.md", self.as_markdown())

    def problems(self) -> list[str]:
        """Checks and sections that failed, a sentence each."""
        found = []
        for key, result in self.results.items():
            if "error" in result:
                found.append(f"{key}: {result['error'].splitlines()[-1]}")
            for row in result.get("rows", ()):
                if not row.get("passed", True):
                    found.append(f"{key}: {', '.join(f'{name} {as_cell(value)}' for name, value in row.items())}")
        return found

    def as_markdown(self) -> str:
        """The report: conditions, problems, and a table for each title."""
        where = ", ".join(f"{name} {value}" for name, value in self.conditions.items())
        parts = [f"# GPU report\n\n{where}\n"]
        problems = self.problems()
        parts.append("".join(f"- **failed:** {problem}\n" for problem in problems) or "All checks passed.\n")
        tables: dict[str, list[Row]] = {}
        for key, result in self.results.items():
            tables.setdefault(key.partition(":")[0], []).extend(result.get("rows", ()))
        for title, rows in tables.items():
            if rows:
                table = [list(rows[0]), *([as_cell(value) for value in row.values()] for row in rows)]
                parts.append(f"## {title}\n\n{as_markdown(table)}")
        return "\n".join(parts)


def as_cell(value: Any) -> str:
    """A figure with three digits; a dash where there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def run(report: Report, all_sections: list[Section], deadline: float) -> None:
    """Run what is missing or failed, until the deadline, in seconds of `time.monotonic`."""
    for section in report.open_sections(all_sections):
        if time.monotonic() > deadline:
            break
        report.note(section.key, error="it did not end")  # so that a section that kills the process does so once
        started = time.monotonic()
        try:
            rows = section.run()
        except Exception as error:
            report.note(section.key, error="".join(traceback.format_exception(error)).strip())
            # After any other error of a kernel, nothing in this process works any more.
            ends = isinstance(error, torch.AcceleratorError)
        else:
            report.note(section.key, seconds=round(time.monotonic() - started, 1), rows=rows)
            ends = False
        print(f"{section.key}: {time.monotonic() - started:.1f} s", flush=True)
        if ends:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for gpu.json and gpu.md")
    parser.add_argument("--small", action="store_true", help="tiny models, for a CPU")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="minutes after which no section starts")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    setting = Setting(pick_device(), options.small)
    if setting.device.type != "cuda" and not options.small:
        parser.error("no CUDA GPU; add --small to run tiny models on this device")
    conditions = machine(setting.device) | {"python": platform.python_version(), "small": options.small}
    report, all_sections = Report(options.folder, conditions), sections(setting)
    run(report, all_sections, deadline)
    missing = [section.key for section in all_sections if section.key not in report.results]
    for problem in [*report.problems(), *(f"{key}: not run yet" for key in missing)]:
        print(problem)
    if report.results:
        print(f"wrote {options.folder}/gpu.md and gpu.json")
    raise SystemExit(bool(report.problems() or missing))


if __name__ == "__main__":
    main()
