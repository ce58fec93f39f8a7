"""Print the results of a run as a table, and write it with a plot.

    scratch report runs/quickstart

Reads the output of all finished stages in the folder, and writes summary.json, summary.md and summary.png there.
"""

from dataclasses import dataclass
from pathlib import Path

from training.common.recipe import PathText, parse, positional


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

    print(write_summary(Path(config.run_dir)))
    print(f"report: wrote summary.md, summary.json and summary.png in {config.run_dir}")
