"""The numbers of a run: one JSON object a line, for people's tools and for our plots."""

import json
from pathlib import Path
from typing import Any


class MetricsLog:
    """Append-only `metrics.jsonl`. Lines have `step` and `tokens`, and either `loss` or `validation_loss`;
    beside the latter, in a mixture of data, `validation_loss/FOLDER` for each folder of shards.

    Args:
        file: may exist from an interrupted run.
        step: what the run goes on from; later lines of the interrupted run are dropped, since they come again.
    """

    def __init__(self, file: Path, step: int):
        self.file = file
        kept = [record for record in read_metrics(file) if record["step"] <= step] if step else []
        self.file.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def write(self, record: dict[str, Any]) -> None:
        with self.file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """All records; a last line torn by a crash is left out."""
    if not file.is_file():
        return []
    records = []
    for line in file.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
