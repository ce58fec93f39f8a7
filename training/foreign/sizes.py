"""Sizes of a model that its checkpoint may not hold: read where it does, requested by a flag where it does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.foreign.checkpoint import Checkpoint


@dataclass
class Sizes:
    """Sizes from the command line; None for those that were not given."""

    heads: int | None = None
    context: int | None = None
    rope_parameters: dict[str, Any] | None = None

    def agree(self, checkpoint: Checkpoint, flag: str, stored: Any, example: Any) -> Any:
        """A value of the checkpoint, or of the flag where it holds none.

        Args:
            stored: in the checkpoint; None if it holds none.
            example: for the error.

        Raises:
            UserError: neither gives it, or they differ.
        """
        given = getattr(self, flag)
        if stored is None and given is None:
            raise checkpoint.error(f"the checkpoint does not hold '{flag}'; add --{flag} {example}")
        if stored is not None and given is not None and stored != given:
            raise checkpoint.error(f"'{flag}' is {given}, but the checkpoint has {stored}; leave --{flag} out")
        return given if stored is None else stored


def whole_number(checkpoint: Checkpoint, settings: Mapping[str, Any], key: str) -> int | None:
    """A size among stored settings; None if it is not there.

    Raises:
        UserError: it is not a whole number above 0.
    """
    value = settings.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise checkpoint.error(f"{key} is {value!r:.80}, not a whole number of at least 1")
    return value


def number(checkpoint: Checkpoint, settings: Mapping[str, Any], key: str, default: float) -> float:
    """A number of at least 0 among stored settings.

    Raises:
        UserError: it is something else.
    """
    value = settings.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1e18:
        raise checkpoint.error(f"{key} is {value!r:.80}, not a number of at least 0")
    return float(value)


def check_settings(checkpoint: Checkpoint, settings: Mapping[str, Any], found: Mapping[str, int]) -> None:
    """Check stored sizes against those of the tensors.

    Args:
        found: the project's name of a size to its value in the tensors.

    Raises:
        UserError: names the first that differs.
    """
    for key, value in found.items():
        stored = whole_number(checkpoint, settings, key)
        if stored not in (None, value):
            raise checkpoint.error(f"{key} is {stored}, but its tensors have {value}; the file contradicts itself")


def mapping(checkpoint: Checkpoint, settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A mapping of settings; empty if it is not there. Raises UserError: it is something else."""
    value = settings.get(key, {})
    if not isinstance(value, dict):
        raise checkpoint.error(f"{key} is {value!r:.80}, not a mapping of settings")
    return value
