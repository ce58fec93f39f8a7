"""Floating-point operations of training, from sizes alone: the count that a run logs and that the planner predicts."""

from collections.abc import Iterable

SHORTEST_BLOCK, MOST_BLOCKS = 128, 4  # smaller products are slower, and each block adds to the time of compiling


def block_length(sequence_length: int) -> int:
    """Queries in a block of `training.machine.attention`."""
    return max(SHORTEST_BLOCK, -(-sequence_length // MOST_BLOCKS))


def keys_of_blocks(sequence_length: int) -> float:
    """Mean number of keys for which that attention computes the scores of a query."""
    block = block_length(sequence_length)
    starts = range(0, sequence_length, block)
    ends = [min(start + block, sequence_length) for start in starts]
    return sum((end - start) * end for start, end in zip(starts, ends, strict=True)) / sequence_length


def positions_seen(sequence_length: int, window: int | None = None) -> float:
    """Mean number of positions that a token attends to: itself and those before it in its attention window.

    Args:
        window: positions that a layer sees, the token included; None: all before it.
    """
    window = min(window or sequence_length, sequence_length)
    return window - window * (window - 1) / (2 * sequence_length)


def attention_operations(attention_width: int, positions: Iterable[float]) -> float:
    """Operations per token of the two products of attention, forward and backward.

    Args:
        attention_width: heads * head_dim.
        positions: for each layer, the mean number of positions that a token attends to.
    """
    return 12 * attention_width * sum(positions)


def matrix_operations(parameters: int) -> int:
    """Operations per token of products with so many weights, forward and backward."""
    return 6 * parameters
