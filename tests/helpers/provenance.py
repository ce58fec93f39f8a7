"""The record of a stage that never ran."""

import json
from pathlib import Path
from typing import Any

from training.stages.provenance import PROVENANCE


def write_provenance(folder: Path, stage: str, **given: Any) -> None:
    """Write `provenance.json` as the stage would, with these values."""
    record = {"stage": stage, "fingerprint": "x", "recipe": {}, "inputs": {}, "versions": {}, "seconds": 1.0}
    record |= {"metrics": {}, "files": {}, "command": f"scratch {stage}"} | given
    (folder / PROVENANCE).write_text(json.dumps(record))


def unfinish(folder: Path) -> None:
    """Make the complete output of a stage one that was killed before it was complete."""
    file = folder / PROVENANCE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"complete": False}))
