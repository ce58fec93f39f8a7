"""Item files: the outcome of every item for each model, kept so that models are compared on the same items."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from urllib.parse import quote

from training.common.errors import UserError
from training.common.json_files import fits
from training.eval.measures.figures import ItemOutcome

FOLDER = "items"
_NUMBER = (int, float)
_LARGEST = 1e100  # a finite number above it is no score, and the sum of such may overflow
_SHAPE = {"kind": str, "name": str, "item": str, "scores": {str: (bool, *_NUMBER)}, "weight": (*_NUMBER, NoneType)}


def write_outcomes(folder: Path, model: str, outcomes: Iterable[ItemOutcome]) -> None:
    """Write `items/MODEL.jsonl`, one outcome per line. Equal items of a measure are numbered."""
    seen: Counter[tuple[str, str, str]] = Counter()
    lines = []
    for outcome in outcomes:
        identity = (outcome.kind, outcome.name, outcome.item)
        seen[identity] += 1
        record = asdict(outcome) | ({"item": f"{outcome.item}-{seen[identity]}"} if seen[identity] > 1 else {})
        lines.append(json.dumps({key: value for key, value in record.items() if value is not None}) + "\n")
    file = _file(folder, model)
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(lines), encoding="utf-8")


def read_outcomes(folder: Path, model: str) -> list[ItemOutcome]:
    """The outcomes of a model, in the order in which they were measured.

    Raises:
        UserError: none were written, or the file is damaged.
    """
    file = _file(folder, model)
    if not file.is_file():
        raise UserError(f"'compare': {folder} has no {file.relative_to(folder)}; run `scratch evaluate` again")
    try:
        outcomes = [ItemOutcome(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        if not fits([asdict(outcome) for outcome in outcomes], [_SHAPE]):
            raise ValueError
        numbers = (number for outcome in outcomes for number in (*outcome.scores.values(), outcome.weight or 0))
        if any(_LARGEST < abs(number) < math.inf for number in numbers):
            raise ValueError
        return outcomes
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"'compare': {file} is damaged; run `scratch evaluate` again") from None


def _file(folder: Path, model: str) -> Path:
    return folder / FOLDER / f"{quote(model, safe=' ')}.jsonl"
