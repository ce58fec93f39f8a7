"""Random orders that depend on names and a seed alone, never on how a list happened to be sorted."""

import hashlib


def shuffle_key(seed: int, name: str) -> bytes:
    """A sort key that shuffles: eight bytes of a hash of the seed and the name."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
