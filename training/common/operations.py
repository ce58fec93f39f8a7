"""Floating-point operations of training, from sizes alone: the count that a run logs and that the planner predicts."""

from collections.abc import Iterable


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
