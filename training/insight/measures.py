"""Measures of attention heads and of the model: their definitions, each with what to look for.

Attention is `a`: `a[i, j]` is the probability that the query at place i gives to the key at place j <= i. Three
measures follow the patterns of TransformerLens' head detector: a head's score is its mass on the pattern, averaged over
the places that have a key in the pattern (TransformerLens divides by all places):

    previous_token    key i - 1; places from 1 on
    duplicate_token   earlier keys with the same token
    induction         keys after an earlier occurrence of the same token

and the others are means over the places of a sequence:

    first_token       a[i, 0]; places from 1 on
    entropy           - sum_j a[i, j] ln a[i, j] / ln(i + 1), since the place i sees i + 1 keys; places from 1 on
    distance          sum_j a[i, j] (i - j)
"""

from collections.abc import Sequence

import numpy as np
import torch

# For each measure, in the order of tables and menus, a sentence that says what to look for.
MEASURES = {
    "previous_token": "Share of attention on the token just before: near 1 in the first head of an induction circuit, "
    "which tells each token what stands before it.",
    "duplicate_token": "Share of attention on earlier occurrences of the same token, where there are any.",
    "induction": "Share of attention on the token that followed an earlier occurrence of the current one: near 1 in a "
    "head that continues repeated text.",
    "first_token": "Share of attention on the first token: above 0.5, the head mostly rests there (an attention sink).",
    "entropy": "Spread of attention: 1 is uniform over all tokens so far, 0 is all on a single one.",
    "distance": "Mean number of tokens that the head looks back, weighted by attention.",
    "copying": "Copying by the weights alone: near 1, attention to a token raises the logit of that token; near -1, it "
    "lowers it.",
}
OF_ATTENTION = tuple(measure for measure in MEASURES if measure != "copying")


def head_sums(attention: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The measures of attention, before the division, so that sums of several batches can be added.

    Args:
        attention: (batch, heads, seq, seq) fp32.
        input_ids: (batch, seq).

    Returns:
        Sums over batch and places, (measures, heads), in the order of `OF_ATTENTION`, and the numbers of places that
        they run over, (measures,).
    """
    batch, heads, seq, _ = attention.shape
    place = torch.arange(seq, device=attention.device)
    duplicate = (input_ids[:, :, None] == input_ids[:, None, :]).tril(-1)  # (batch, seq, seq)
    after = torch.zeros_like(duplicate)
    after[:, :, 1:] = duplicate[:, :, :-1]

    back = (place[:, None] - place).clamp(min=0).expand_as(duplicate)
    patterns = torch.stack((duplicate, after, back), dim=1).to(attention.dtype)  # (batch, 3, seq, seq)
    on_duplicate, on_after, distance = (attention.flatten(2) @ patterns.flatten(2).mT).sum(0).unbind(-1)  # (heads,)
    spread = torch.special.entr(attention[:, :, 1:]).sum(-1) / (place[1:] + 1.0).log()  # (batch, heads, seq - 1)
    sums = {
        "previous_token": attention.diagonal(-1, 2, 3).sum((0, 2)),
        "duplicate_token": on_duplicate,
        "induction": on_after,
        "first_token": attention[:, :, 1:, 0].sum((0, 2)),
        "entropy": spread.sum((0, 2)),
        "distance": distance,
    }
    counts = dict.fromkeys(("previous_token", "first_token", "entropy"), batch * (seq - 1))
    counts |= {"duplicate_token": duplicate.any(-1).sum(), "induction": after.any(-1).sum(), "distance": batch * seq}
    return (
        torch.stack([sums[measure] for measure in OF_ATTENTION]),
        torch.tensor([int(counts[measure]) for measure in OF_ATTENTION], device=attention.device),
    )


def copying_score(eigenvalues: torch.Tensor) -> torch.Tensor:
    """sum(lambda) / sum(|lambda|) over the last dimension: 1 for pure copying; 0 if all are zero, as they may be at
    first.

    Elhage et al., 2021, https://transformer-circuits.pub/2021/framework
    """
    total = eigenvalues.abs().sum(-1)
    return torch.where(total > 0, eigenvalues.real.sum(-1) / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)


def context_places(length: int) -> tuple[slice, slice]:
    """The early and the late part of `loss_by_position` that the in-context-learning score compares.

    Around 50 and around 500 tokens of context for 512 tokens, as in Olsson et al. (https://arxiv.org/abs/2209.11895),
    and around 50 and 250 for 256. Each is a mean over neighbouring places, because a single one is too noisy for a few
    sequences.
    """
    early, late = max(1, min(50, length // 5)), length - length // 40
    around = early // 5
    return slice(early - around - 1, early + around), slice(late - around - 1, late + around)


def in_context_learning(loss_by_position: Sequence[float]) -> float:
    """Mean loss late in a sequence minus mean loss early in it, in nats: more negative, the more context helps.

    Args:
        loss_by_position: item i is the loss after i + 1 tokens of context.
    """
    early, late = (np.asarray(loss_by_position)[places] for places in context_places(len(loss_by_position)))
    return float(late.mean() - early.mean())
