"""Mixtures one after the other: what is learnt last may be mixed otherwise than what is learnt first."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.data.mixture import Mixture


class Curriculum:
    """Which member each row comes from where the weights change in the course of a run; as a `Mixture` otherwise.

    Every phase begins with a step, and in each of them the rows of every member are its share of the phase to within
    less than one row. A member goes on in a phase where it had stopped in an earlier one.

    Args:
        data: the weights at the beginning, see `Mixture`.
        later: for shares of the run, the weights from there on. They may name other folders than `data`.
        steps: of the run.
        rows_per_step: in a global batch.

    Attributes:
        folders: the members of all phases, sorted.
        starts: (phases,) the first step of each.

    Raises:
        ValueError: what a `Mixture` raises, or phases that do not begin at a step of their own.
    """

    def __init__(self, data: str | dict[str, Any], later: Mapping[Any, Any], steps: int, rows_per_step: int):
        self.phases, self.starts, self.rows_per_step = [Mixture(data)], [0], rows_per_step
        for share in sorted(later, key=str):
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
                raise ValueError(f"'curriculum': a phase begins at a share of the run between 0 and 1, not {share!r}")
        for share, weights in sorted(later.items()):
            start = round(share * steps)
            if not self.starts[-1] < start < steps:
                raise ValueError(f"'curriculum': {share} of {steps:,} steps leaves a phase without a step")
            self.phases.append(Mixture(weights, f"curriculum.{share}"))
            self.starts.append(start)
        self.folders = sorted(set().union(*(phase.folders for phase in self.phases)))
        self._members = [np.searchsorted(self.folders, phase.folders) for phase in self.phases]
        self._rows = np.array([*self.starts, steps]) * rows_per_step  # where phases begin, and the run ends

    def locate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The member of each row of the run, and how many rows that member has had before it; all (rows,)."""
        phases = np.searchsorted(self._rows[1:-1], places, side="right")
        members, before = np.empty_like(places), np.empty_like(places)
        for phase in np.unique(phases):
            here, first = phases == phase, self._rows[phase]
            own, numbers = self.phases[phase].locate(places[here] - first)
            members[here] = self._members[phase][own]
            before[here] = self.counts(int(first))[members[here]] + numbers
        return members, before

    def counts(self, rows: int) -> np.ndarray:
        """How many of the first `rows` rows each member has, (members,)."""
        counts = np.zeros(len(self.folders), dtype=np.int64)
        for phase, members, first, end in zip(self.phases, self._members, self._rows, [*self._rows[1:-1], np.inf]):
            if rows > first:
                counts[members] += phase.counts(int(min(rows, end) - first))
        return counts

    def most(self, rows: int) -> np.ndarray:
        """The most rows that each member has of so many of one phase, (members,)."""
        most = np.zeros(len(self.folders), dtype=np.int64)
        for phase, members in zip(self.phases, self._members, strict=True):
            most[members] = np.maximum(most[members], phase.most(rows))
        return most

    @property
    def shares(self) -> np.ndarray:
        """Of the whole run, (members,) adding up to 1."""
        lengths = np.diff(self._rows) / self._rows[-1]
        shares = np.zeros(len(self.folders))
        for phase, members, length in zip(self.phases, self._members, lengths, strict=True):
            shares[members] += length * phase.shares
        return shares

    def describe(self) -> str:
        """A line for each phase: its shares as they come out."""
        lines = []
        for start, first, end in zip(self.starts, self._rows[:-1], self._rows[1:], strict=True):
            counts = self.counts(int(end)) - self.counts(int(first))
            shares = ", ".join(f"{count / counts.sum():.2%} {folder}" for folder, count in zip(self.folders, counts))
            lines.append(f"    from step {start:,}: {shares}")
        return "\n".join(lines)
