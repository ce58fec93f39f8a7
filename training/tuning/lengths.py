"""Samples beside the positions that a model has."""

from collections.abc import Iterable

from transformers import PreTrainedModel

from training.common.errors import UserError


def max_positions(model: PreTrainedModel) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_positions(
    lengths: Iterable[int], positions: int | None, kind: str, name: str, cure: str, key: str = "max_length"
) -> None:
    """Refuse samples that exceed the model's positions.

    Args:
        lengths: in tokens, as they would be trained on.
        positions: of the model, None if it knows no limit.
        kind, name: what the samples are, and of which split, as in "pairs of train".
        cure: what to do about it.
        key: of the recipe, that does it.

    Raises:
        UserError: how many do.
    """
    beyond = sum(length > positions for length in lengths) if positions else 0
    if beyond:
        raise UserError(
            f"'{key}': {beyond:,} {kind} of {name} exceed the model's {positions} positions (max_position_embeddings); "
            f"{cure}"
        )
