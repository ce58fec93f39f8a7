"""Token budget: how many tokens each source gives to a mixture, and which of its documents.

Weights set the shares; the text available sets the total. A source that is small for its weight is repeated, up to its
`max_epochs`. If that is not enough, less is taken from the others: the shares are kept, not the total.
"""

from collections.abc import Sequence

import numpy as np

from training.corpus.sources import SourceConfig


def requested_shares(sources: Sequence[SourceConfig], available: np.ndarray, temperature: float) -> np.ndarray | None:
    """Shares of the total that add up to 1, or None where every token is taken once.

    Args:
        available: (sources,) tokens.
        temperature: without weights, shares follow `available ** (1 / temperature)`: above 1, small sources get more
            than they have (https://arxiv.org/abs/1907.05019).
    """
    weights = [source.weight for source in sources]
    if None in weights:
        if temperature == 1:
            return None
        weights = available ** (1 / temperature)
    return np.array(weights, dtype=float) / np.sum(weights)


def tokens_to_take(
    sources: Sequence[SourceConfig], available: np.ndarray, temperature: float, max_tokens: int | None
) -> np.ndarray:
    """Tokens of each source, more than there are where it is repeated.  # (sources,) int64"""
    shares = requested_shares(sources, available, temperature)
    limits = np.array(
        [
            min(source.max_tokens or np.inf, source.max_epochs * tokens)
            for source, tokens in zip(sources, available, strict=True)
        ]
    )
    if shares is None:
        once = np.minimum(limits, available)
        return (once * min(1, (max_tokens or np.inf) / once.sum())).astype(np.int64)
    total = min((limits / shares).min(), max_tokens or np.inf)
    return (total * shares).astype(np.int64)


def choose(lengths: np.ndarray, tokens: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents of a source for a number of tokens: whole epochs, and a part of the last one, drawn by the seed, of
    which one document is truncated.

    Args:
        lengths: (documents,) tokens.

    Returns:
        (chosen,) numbers of documents, in order; (chosen,) tokens to take from each.
    """
    epochs, rest = divmod(tokens, int(lengths.sum()))
    drawn = np.random.default_rng(seed).permutation(len(lengths))
    ends = np.cumsum(lengths[drawn])
    last = int(np.searchsorted(ends, rest))  # the rest ends within this one
    taken = lengths.copy()
    taken[drawn[last]] -= ends[last] - rest
    part = np.sort(drawn[: last + 1])
    part = part[taken[part] > 0]
    chosen = np.concatenate([np.tile(np.arange(len(lengths)), epochs), part])
    return chosen, np.concatenate([np.tile(lengths, epochs), taken[part]])


def interleave(lengths: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One order of the documents of several sources in which the tokens of each are spread evenly.

    Args:
        lengths: tokens of each source's documents, in order.

    Returns:
        (all,) the source of each, and (all,) its number among those of that source.
    """
    places = [(np.cumsum(part) - part / 2) / max(1, part.sum()) for part in lengths]  # of the middles, from 0 to 1
    sources = np.repeat(np.arange(len(places)), [len(part) for part in places])
    numbers = np.concatenate([np.arange(len(part)) for part in places])
    order = np.argsort(np.concatenate(places), kind="stable")
    return sources[order], numbers[order]
