"""Votes of a store as figures to rate: filtered, machine votes in both orders joined, leaked battles left out."""

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from training.arena.answer_style import first_prompt, style_differences, topic_of
from training.arena.ratings import Votes
from training.arena.store import Battle, Contestant, Kind, Store, Vote, Winner

SCORES: dict[Winner, float] = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True)
class Filter:
    """Conditions on the battles and votes to use.

    Attributes:
        kind: of the votes. Machine votes are never rated together with human ones.
        topic: see `training.arena.answer_style.topic_of`; None for all.
        min_words, max_words: words of the first prompt; None for no bound.
    """

    kind: Kind = "human"
    topic: str | None = None
    min_words: int | None = None
    max_words: int | None = None

    def takes(self, battle: Battle) -> bool:
        """Whether the prompt of a battle has this topic and length."""
        prompt = first_prompt(battle)
        words = len(prompt.split())
        return (
            self.topic in (None, topic_of(prompt))
            and (self.min_words is None or words >= self.min_words)
            and (self.max_words is None or words <= self.max_words)
        )


@dataclass(frozen=True)
class Verdict:
    """The winner of a battle by one rater, both orders joined.

    Attributes:
        winner: a tie if the rater preferred another answer when the sides were swapped.
        consistent: whether that did not happen; None if the rater saw one order only.
    """

    battle: Battle
    rater: str
    winner: Winner
    time: float
    consistent: bool | None


@dataclass(frozen=True)
class Results:
    """Verdicts that count for the ratings.

    Attributes:
        names: of the models in the verdicts, unlike each other.
        fingerprints: of the same models.
        verdicts: in order of arrival.
        leaked: number of battles with votes that are left out, because an answer said a contestant's name.
        kinds: number of votes of each kind in the store.
    """

    names: list[str]
    fingerprints: list[str]
    verdicts: list[Verdict]
    leaked: int
    kinds: dict[str, int]

    def votes(self, style: bool = False) -> Votes:
        """The verdicts as arrays, with the style of the answers if requested."""
        places = {fingerprint: place for place, fingerprint in enumerate(self.fingerprints)}
        raters = {rater: place for place, rater in enumerate(dict.fromkeys(each.rater for each in self.verdicts))}
        battles = [each.battle for each in self.verdicts]
        columns = {"style": style_differences(battles)} if style else {}
        return Votes(
            len(self.names),
            np.array([places[battle.model_a] for battle in battles], dtype=np.int64),
            np.array([places[battle.model_b] for battle in battles], dtype=np.int64),
            np.array([SCORES[each.winner] for each in self.verdicts]),
            np.array([raters[each.rater] for each in self.verdicts], dtype=np.int64),
            **columns,
        )


def read_verdicts(store: Store, kind: Kind, rater: str | None = None) -> list[Verdict]:
    """The verdicts of all raters of a kind, or of one of them, in order of arrival."""
    voted = store.battles("WHERE id IN (SELECT battle FROM votes WHERE kind = ?)", (kind,))
    return join_orders(store.votes(kind, rater), {battle.id: battle for battle in voted})


def read_results(store: Store, chosen: Filter) -> Results:
    """The verdicts of a store that a filter takes."""
    verdicts = [each for each in read_verdicts(store, chosen.kind) if chosen.takes(each.battle)]
    leaked = {each.battle.id for each in verdicts if each.battle.leaked}
    verdicts = [each for each in verdicts if not each.battle.leaked]
    seen = {side for each in verdicts for side in (each.battle.model_a, each.battle.model_b)}
    contestants = [each for each in store.contestants() if each.fingerprint in seen]
    return Results(
        unique_names(contestants),
        [each.fingerprint for each in contestants],
        verdicts,
        len(leaked),
        dict(Counter(vote.kind for vote in store.votes())),
    )


def join_orders(votes: list[Vote], battles: dict[str, Battle]) -> list[Verdict]:
    """One verdict for each battle and rater, in order of arrival; a rater who contradicts itself calls a tie."""
    together: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        together[vote.battle, vote.rater].append(vote)
    verdicts = []
    for (battle, rater), each in together.items():
        winners = {vote.winner for vote in each}
        winner = winners.pop() if len(winners) == 1 else "tie"
        consistent = None if len(each) == 1 else not winners
        verdicts.append(Verdict(battles[battle], rater, winner, max(vote.time for vote in each), consistent))
    return sorted(verdicts, key=lambda verdict: verdict.time)


def unique_names(contestants: list[Contestant]) -> list[str]:
    """The names of models; one that several have is followed by the fingerprint, or its beginning if that differs."""
    forms = [
        (each.name, f"{each.name} ({each.fingerprint[:8]})", f"{each.name} ({each.fingerprint})")
        for each in contestants
    ]
    count = Counter(form for each in forms for form in each)
    return [next((form for form in each if count[form] == 1), each[-1]) for each in forms]
