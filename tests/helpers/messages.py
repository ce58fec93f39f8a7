"""Errors by their key and facts, so that their wording can improve."""

import contextlib
from collections.abc import Iterator

import pytest

from training.common.errors import UserError


@contextlib.contextmanager
def refused(key: str | None, *facts: object) -> Iterator[None]:
    """Expects a UserError of one line that quotes `key` and holds all `facts`: names, numbers, places, the remedy."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert key is None or f"'{key}'" in message, message
    for fact in facts:
        assert str(fact) in message, f"{fact!r} is not in: {message}"
