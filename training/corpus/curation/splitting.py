"""What is held out for validation: a function of names, sizes and the seed alone."""

from typing import Literal

import numpy as np

from training.corpus.curation.ordering import shuffle_key

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")

# No unit may fill more than this share of the validation text, so that its score speaks for many authors.
VALIDATION_SHARE = 0.25


def split_key(seed: int, name: str) -> int:
    """Where a unit stands in the order in which units are held out."""
    return int.from_bytes(shuffle_key(seed, f"validation:{name}"))


def hold_out(keys: np.ndarray, sizes: np.ndarray, target: float) -> np.ndarray:
    """Units in the order of their keys until their bytes reach the target; one that would fill too much of it, or
    more than what is left of it, is passed over.

    Args:
        keys: (units,) of `split_key`.
        sizes: (units,) bytes.
        target: bytes.

    Returns:
        (units,) bool, at least one of them true.
    """
    held_out, remaining = np.zeros(len(keys), dtype=bool), target
    order = np.argsort(keys, kind="stable")
    order = order[sizes[order] <= VALIDATION_SHARE * target]
    smallest = sizes[order].min(initial=np.iinfo(np.int64).max)
    for unit in order:
        if remaining < smallest:
            break
        if sizes[unit] <= remaining:
            held_out[unit] = True
            remaining -= sizes[unit]
    if not held_out.any():
        held_out[np.lexsort((keys, sizes))[0]] = True
    return held_out


def whole_characters(text: str, most: int) -> int:
    """Bytes of the characters that lie within the first `most` bytes of a text."""
    return len(text.encode()[:most].decode(errors="ignore").encode())


def line_end(text: str, target: int) -> int:
    """Bytes up to the last line's end within the first `target` bytes of a text; without one, up to the last whole
    character there."""
    head = text.encode()[:target].decode(errors="ignore")
    return len(head[: head.rfind("\n") + 1 or len(head)].encode())
