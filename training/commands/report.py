"""scratch report RUN_DIR: one table and one picture of a run.

Reads what the stages left in RUN_DIR, complete or not, and writes summary.json, summary.md and summary.png there.
"""

from pathlib import Path

from training.common.errors import UserError
from training.eval.results.summary import write_summary


def main(arguments: list[str]) -> None:
    if "--help" in arguments or "-h" in arguments:
        print(__doc__.strip())
        return
    if len(arguments) != 1:
        raise UserError("report takes one folder, as in `scratch report runs/quickstart`")
    print(write_summary(Path(arguments[0])))
    print(f"report: wrote summary.md, summary.json and summary.png in {arguments[0]}")
