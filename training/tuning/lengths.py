"""Length checks: samples against the positions of a model, and records against `max_length`."""

from collections.abc import Iterable

from training.common.errors import UserError


def check_lengths(
    lengths: Iterable[int], positions: int | None, kind: str, name: str, remedy: str, key: str = "max_length"
) -> None:
    """Reject samples that exceed the model's positions.

    Args:
        lengths: in tokens, as the samples would be trained on.
        positions: of the model, see `training.model_io.context_length`.
        kind, name: what the samples are, and of which split, as in "pairs of train".
        remedy: what the user should do.
        key: the recipe key to change.

    Raises:
        UserError: with the number of samples that are too long.
    """
    beyond = sum(length > positions for length in lengths) if positions else 0
    if beyond:
        raise UserError(
            f"'{key}': {beyond:,} {kind} of {name} exceed the model's {positions} positions (max_position_embeddings); "
            f"{remedy}"
        )


def check_kept(lengths: list[int], count: int, max_length: int | None, positions: int | None, name: str) -> None:
    """Report how many preference records were dropped because their prompts fill `max_length`.

    Args:
        lengths: of the records that were kept, in tokens, as they would be trained on.
        count: number of all records.
        positions: of the model, see `training.model_io.context_length`.
        name: of the split.

    Raises:
        UserError: none was kept, or some exceed the model's positions.
    """
    if not lengths:
        raise UserError(
            f"'max_length': every prompt of {name} fills all {max_length} tokens and leaves no room for an answer; "
            "raise it"
        )
    if len(lengths) < count:
        dropped = count - len(lengths)
        print(f"{name}: {dropped:,} of {count:,} records are dropped: their prompts fill max_length {max_length}")
    check_lengths(lengths, positions, "records", name, f"set max_length: {positions} to truncate them")
