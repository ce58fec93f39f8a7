"""Curricula: mixtures whose weights change during a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.data.mixture import Mixture


class Curriculum:
    """The member of each sequence of a run whose weights change; otherwise like a `Mixture`.

    Every phase begins with a step. Within each phase, every member has its share of the sequences to within less than
    one. A member resumes in a phase where it stopped in an earlier one.

    Args:
        data: the weights at the beginning, see `Mixture`.
        later: weights by the share of the run from which they hold. They may name other folders than `data`.
        steps: steps of the run.
        sequences_per_step: sequences per global batch.

    Attributes:
        folders: the members of all phases, sorted.
        starts: (phases,) the first step of each.

    Raises:
        ValueError: what a `Mixture` raises, or phases without a step.
    """

    def __init__(self, data: str | dict[str, Any], later: Mapping[Any, Any], steps: int, sequences_per_step: int):
        self.phases, self.starts, self.sequences_per_step = [Mixture(data)], [0], sequences_per_step
        by_share = {_share(key): weights for key, weights in later.items()}
        for share, weights in sorted(by_share.items()):
            start = round(share * steps)
            if not self.starts[-1] < start < steps:
                raise ValueError(f"'curriculum': {share} of {steps:,} steps leaves a phase without a step; change it")
            self.phases.append(Mixture(weights, f"curriculum.{share}"))
            self.starts.append(start)
        self.folders = sorted(set().union(*(phase.folders for phase in self.phases)))
        self._members = [np.searchsorted(self.folders, phase.folders) for phase in self.phases]
        self._borders = np.array([*self.starts, steps]) * sequences_per_step  # where phases begin, and the run ends

    def locate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The member of each place, and the number of sequences it has had before; both (places,)."""
        phases = np.searchsorted(self._borders[1:-1], places, side="right")
        members, before = np.empty_like(places), np.empty_like(places)
        for phase in np.unique(phases):
            here, first = phases == phase, self._borders[phase]
            own, numbers = self.phases[phase].locate(places[here] - first)
            members[here] = self._members[phase][own]
            before[here] = self.counts(int(first))[members[here]] + numbers
        return members, before

    def counts(self, sequences: int) -> np.ndarray:
        """Numbers of each member's sequences among the first `sequences` of the run, (members,)."""
        counts = np.zeros(len(self.folders), dtype=np.int64)
        ends = [*self._borders[1:-1], np.inf]
        for phase, members, first, end in zip(self.phases, self._members, self._borders, ends):
            if sequences > first:
                counts[members] += phase.counts(int(min(sequences, end) - first))
        return counts

    def most(self, sequences: int) -> np.ndarray:
        """The most sequences that each member has among `sequences` in a row of one phase, (members,)."""
        most = np.zeros(len(self.folders), dtype=np.int64)
        for phase, members in zip(self.phases, self._members, strict=True):
            most[members] = np.maximum(most[members], phase.most(sequences))
        return most

    @property
    def shares(self) -> np.ndarray:
        """Shares of the whole run, (members,), adding up to 1."""
        lengths = np.diff(self._borders) / self._borders[-1]
        shares = np.zeros(len(self.folders))
        for phase, members, length in zip(self.phases, self._members, lengths, strict=True):
            shares[members] += length * phase.shares
        return shares

    def describe(self) -> str:
        """A line for each phase: the actual shares."""
        lines = []
        for start, first, end in zip(self.starts, self._borders[:-1], self._borders[1:], strict=True):
            counts = self.counts(int(end)) - self.counts(int(first))
            shares = ", ".join(f"{count / counts.sum():.2%} {folder}" for folder, count in zip(self.folders, counts))
            lines.append(f"    from step {start:,}: {shares}")
        return "\n".join(lines)


def _share(key: Any) -> float:
    """The share of a run that a key gives; keys of YAML are text."""
    try:
        share = float("nan" if isinstance(key, bool) else key)
    except (TypeError, ValueError):
        share = float("nan")
    if not 0 < share < 1:
        raise ValueError(f"'curriculum': a phase begins at a fraction of the run, from 0 to 1, not {key!r}")
    return share
