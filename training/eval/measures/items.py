"""What a model did on every single item: kept so that models are compared on the same ones."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from training.common.errors import UserError

FOLDER = "items"


@dataclass(frozen=True)
class Outcome:
    """One item of one measure, of one model.

    Attributes:
        measure: such as `arc_easy`, `answers`, or `text: books`.
        item: what tells the item from others of the measure, the same for every model.
        scores: by metric, such as `acc` (0 or 1).
        weight: of the item in the measure's average, such as the bytes of a text; None where all count alike.
    """

    measure: str
    item: str
    scores: dict[str, float]
    weight: float | None = None


def identify(content: Any) -> str:
    """A short name of an item by its content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def write_outcomes(folder: Path, model: str, outcomes: Iterable[Outcome]) -> None:
    """Write `items/MODEL.jsonl`, an outcome a line. Equal items of a measure are numbered, to tell them apart."""
    seen: Counter[tuple[str, str]] = Counter()
    lines = []
    for outcome in outcomes:
        seen[outcome.measure, outcome.item] += 1
        count = seen[outcome.measure, outcome.item]
        record = asdict(outcome) | ({"item": f"{outcome.item}-{count}"} if count > 1 else {})
        lines.append(json.dumps({key: value for key, value in record.items() if value is not None}) + "\n")
    file = _file(folder, model)
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(lines), encoding="utf-8")


def read_outcomes(folder: Path, model: str) -> dict[str, dict[str, Outcome]]:
    """The outcomes of a model by measure and item.

    Raises:
        UserError: none were kept, or the file is damaged.
    """
    file = _file(folder, model)
    if not file.is_file():
        raise UserError(f"{folder}: no {file.relative_to(folder)}; run `scratch evaluate` again, it keeps them now")
    measures: dict[str, dict[str, Outcome]] = {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            outcome = Outcome(**json.loads(line))
            measures.setdefault(outcome.measure, {})[outcome.item] = outcome
    except (ValueError, TypeError):
        raise UserError(f"{file} is damaged; run `scratch evaluate` again") from None
    return measures


def _file(folder: Path, model: str) -> Path:
    return folder / FOLDER / f"{quote(model, safe=' ')}.jsonl"
