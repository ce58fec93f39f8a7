"""Random orders that depend on names and a seed alone, never on the order of a list."""

import hashlib
import heapq
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def shuffle_key(seed: int, name: str) -> bytes:
    """A sort key that shuffles: eight bytes of a hash of the seed and the name."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()


def draw(named: Iterable[tuple[str, Item]], count: int, seed: int) -> list[Item]:
    """Up to `count` of the named items, in a random order. Keeps no more than that many in memory."""
    keyed = ((shuffle_key(seed, f"sample:{name}"), name, item) for name, item in named)
    return [item for _, _, item in heapq.nsmallest(count, keyed, key=lambda entry: entry[:2])]
