"""Histograms by powers of two: a few numbers for any number of values."""

import numpy as np


def by_powers_of_two(values: np.ndarray) -> dict[str, int]:
    """Numbers of values from each power of two up to the next: {"1": ones, "2": twos and threes, "4": ...}.

    Args:
        values: (values,) positive integers.
    """
    counts = np.bincount(np.frexp(values)[1])  # 2**(exponent - 1) <= value < 2**exponent
    return {str(2 ** (exponent - 1)): int(count) for exponent, count in enumerate(counts) if count}
