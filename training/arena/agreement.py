"""Agreement between raters, and preference for a side: Krippendorff's alpha, position bias with its interval."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from training.arena.ratings import QUANTILE
from training.arena.results import read_verdicts
from training.arena.store import Kind, Store


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval.

    Attributes:
        value, lower, upper: None without observations.
        n: number of observations.
    """

    value: float | None
    lower: float | None
    upper: float | None
    n: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of the raters of two kinds on the battles that both have rated.

    Attributes:
        alpha: Krippendorff's, over model_a, model_b and neither; None if it is undefined.
        battles: number of battles that both have rated.
    """

    alpha: float | None
    battles: int


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for names: 1 is full agreement, 0 is chance.

    See K. Krippendorff, "Computing Krippendorff's alpha-reliability", 2011.

    Args:
        units: what each rater of a unit said. Units with fewer than two raters do not count.

    Returns:
        None if there are no pairs to compare, or all values are the same.
    """
    coincidences: Counter[tuple[Hashable, Hashable]] = Counter()
    for values in units:
        counts = Counter(values)
        for first, count in counts.items():
            for second, other in counts.items():
                pairs = count * (other - (first == second))
                if pairs:
                    coincidences[first, second] += pairs / (len(values) - 1)
    totals: Counter[Hashable] = Counter()
    for (first, _), weight in coincidences.items():
        totals[first] += weight
    n = math.fsum(totals.values())
    observed = math.fsum(weight for (first, second), weight in coincidences.items() if first != second)
    expected = n**2 - math.fsum(total**2 for total in totals.values())
    return 1 - (n - 1) * observed / expected if n > 0 and expected > 0 else None


def agreement(store: Store, kind: Kind, rater: str | None = None) -> Agreement:
    """Agreement of the votes of a kind, or of one rater, with human votes; a tie and "both bad" are the same."""
    said: Mapping[str, list[tuple[Kind, str]]] = defaultdict(list)
    for each, name in ((kind, rater), ("human", None)):
        for verdict in read_verdicts(store, each, name):
            winner = verdict.winner if verdict.winner in ("model_a", "model_b") else "neither"
            said[verdict.battle.id].append((each, winner))
    shared = [values for values in said.values() if {each for each, _ in values} == {kind, "human"}]
    units = [[winner for _, winner in values] for values in shared]
    return Agreement(krippendorff_alpha(units), len(units))


def position_bias(store: Store, kind: Kind, rater: str | None = None) -> Share:
    """Share of the answer that the rater saw first, among votes for one of the two; 0.5 without bias.

    The sides are drawn at random, so that the quality of the models is the same on both.
    """
    decided = [vote for vote in store.votes(kind, rater) if vote.winner in ("model_a", "model_b")]
    return wilson(sum((vote.winner == "model_a") is not vote.swapped for vote in decided), len(decided))


def consistency(store: Store, kind: Kind, rater: str | None = None) -> Share:
    """Share of the battles shown in both orders in which a rater preferred the same answer in both."""
    verdicts = read_verdicts(store, kind, rater)
    twice = [verdict.consistent for verdict in verdicts if verdict.consistent is not None]
    return wilson(sum(twice), len(twice))


def wilson(hits: int, n: int) -> Share:
    """A share with its 95 % interval (E. Wilson, JASA 22, 1927)."""
    if not n:
        return Share(None, None, None, 0)
    share, z = hits / n, QUANTILE
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Share(share, max(0.0, middle - half), min(1.0, middle + half), n)


def rater_remarks(store: Store, kind: Kind, rater: str | None = None) -> list[str]:
    """Position bias of the raters of a kind, or of one of them, and how machines agree with people, as sentences."""
    found = []
    bias = position_bias(store, kind, rater)
    if bias.n:
        found.append(f"the answer shown first won {describe_share(bias)} of the votes for one answer; 50 % is no bias")
    same = consistency(store, kind, rater)
    if same.n:
        found.append(f"in both orders the same answer won in {describe_share(same)} of the battles shown twice")
    if kind != "human":
        both = agreement(store, kind, rater)
        if both.alpha is not None:
            found.append(f"Krippendorff's alpha with human votes is {both.alpha:.2f}, over {both.battles:,} battles")
    return found


def describe_share(share: Share) -> str:
    """A share with its interval, such as `52 % (45 % to 59 %)`."""
    return f"{share.value:.0%} ({share.lower:.0%} to {share.upper:.0%})".replace("%", " %")
