"""The validation split: a function of names, sizes and the seed alone."""

from typing import Literal

import numpy as np

from training.corpus.sources import shuffle_key

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")

# No unit may fill more than this share of the validation text, so that the score covers many authors.
VALIDATION_SHARE = 0.25
SHORTEST_END = 1_000  # bytes held out of the end of a long document: some paragraphs


def split_key(seed: int, name: str) -> int:
    """The position of a unit in the order in which units are held out."""
    return int.from_bytes(shuffle_key(seed, f"validation:{name}"))


def hold_out(
    keys: np.ndarray, sizes: np.ndarray, target: float, most: float = np.inf, total: float | None = None
) -> np.ndarray:
    """Units in the order of their keys until their bytes reach the target. A unit is skipped if it would fill too
    much of the validation text, or more than remains of the target.

    Args:
        keys: (units,) of `split_key`.
        sizes: (units,) bytes.
        target: bytes.
        most: bytes that count of a unit at most; the caller leaves out the rest.
        total: bytes of all validation text, if there is other text besides these units.

    Returns:
        (units,) bool; without other text, at least one of them is true.
    """
    held_out, remaining = np.zeros(len(keys), dtype=bool), target
    order = np.argsort(keys, kind="stable")
    order = order[sizes[order] <= VALIDATION_SHARE * (total or target)]
    counted = np.minimum(sizes, most)
    smallest = counted[order].min(initial=np.iinfo(np.int64).max)
    for unit in order:
        if remaining < smallest:
            break
        if counted[unit] <= remaining:
            held_out[unit] = True
            remaining -= counted[unit]
    if total is None and not held_out.any():
        held_out[np.lexsort((keys, sizes))[0]] = True
    return held_out


def too_long(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """Whether each document is too long to be held out whole, and its end long enough to be held out instead.

    Args:
        sizes: (documents,) bytes.
        fraction: of all bytes, to hold out.

    Returns:
        (documents,) bool.
    """
    return (sizes > VALIDATION_SHARE * fraction * sizes.sum()) & (fraction * sizes >= SHORTEST_END)


def whole_characters(text: str, most: int) -> int:
    """Bytes of the characters that lie within the first `most` bytes of a text."""
    return len(text.encode()[:most].decode(errors="ignore").encode())


def line_end(text: str, target: int, slack: int) -> int:
    """Bytes up to the last line end within the first `target` bytes of a text, if at most `slack` bytes lie between;
    else up to the last whole character there."""
    end = text.encode().rfind(b"\n", max(0, target - slack - 1), target) + 1
    return end or whole_characters(text, target)


def paragraph_end(text: str, target: int, slack: int) -> int:
    """Bytes up to the blank line nearest to `target`, at most an eighth of `slack` from it; without one, up to
    `line_end`."""
    data, near = text.encode(), slack // 8
    around = (data.rfind(b"\n\n", max(0, target - near), target), data.find(b"\n\n", target, target + near))
    ends = [place + 2 for place in around if place >= 0]
    return min(ends, key=lambda end: abs(end - target)) if ends else line_end(text, target, slack)
