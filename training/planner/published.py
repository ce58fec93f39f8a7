"""Published training runs, reproduced from their sizes, tokens and utilisation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.planner.architecture import Architecture
from training.planner.facts import devices as facts
from training.planner.facts.devices import Market, read_rows
from training.planner.flops import flops_per_token
from training.planner.units import HOUR

PUBLISHED = Path(facts.__file__).parent / "published.yaml"


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A training run as its authors describe it.

    Attributes:
        architecture: the model; None where the authors give operations only.
        flops: operations of the run; None: counted from the architecture.
        hours: device-hours.
        mfu: by PaLM's convention.
        stated: whether the authors state it; else it was computed from their hours.
        outlier: why its hours do not compare, if so.
    """

    name: str
    architecture: Architecture | None
    sequence_length: int
    tokens: float
    flops: float | None
    device: str
    hours: float
    mfu: float
    stated: bool
    source: str
    outlier: str

    @property
    def operations(self) -> float:
        """Operations of the run by PaLM's convention."""
        if self.flops is not None:
            return self.flops
        return self.tokens * flops_per_token(self.architecture, self.sequence_length).palm

    def predicted_hours(self, market: Market, mfu: float | None = None) -> float:
        """Device-hours from sizes, tokens and a utilisation, by default the run's own."""
        return self.operations / (market.find(self.device).rate * (mfu or self.mfu)) / HOUR


def read_published() -> list[PublishedRun]:
    """The runs of the shipped table."""
    return [_run(row) for row in read_rows(PUBLISHED)]


def _run(row: dict[str, Any]) -> PublishedRun:
    sizes = dict(row.get("architecture", {}))
    architecture = Architecture.from_preset(sizes.pop("preset", "llama"), name=row["name"], **sizes) if sizes else None
    given = {key: row[key] for key in ("name", "tokens", "device", "hours", "mfu", "source")}
    return PublishedRun(
        **given,
        architecture=architecture,
        sequence_length=row.get("sequence_length", 0),
        flops=row.get("flops"),
        stated=row.get("stated", False),
        outlier=row.get("outlier", ""),
    )
