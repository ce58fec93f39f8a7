"""Print the results of a run as a table, and write it with a plot.

    scratch report runs/quickstart

Reads the output of all finished stages in the folder, and writes summary.json, summary.md and, if there are curves or
scores to draw, summary.png there.
"""

from dataclasses import dataclass
from pathlib import Path

from training.stages.flags import parse
from training.stages.recipe import PathText, positional


@dataclass
class ReportConfig:
    """Options of `scratch report`."""

    run_dir: PathText = positional("folder of a run, such as runs/quickstart")


def main(arguments: list[str]) -> None:
    """Print and write the summary.

    Raises:
        UserError: no finished stage in the folder.
    """
    config = parse(ReportConfig, arguments, __doc__, recipe=False)

    from training.eval.results.summary import write_summary

    summary = write_summary(Path(config.run_dir))
    print(summary.text)
    print(f"report: wrote {', '.join(summary.files)} in {config.run_dir}")
