"""The store of a running arena: it decides the next pair, keeps the votes, and gives the leaderboard."""

import threading
from typing import Any, Literal

from training.arena.agreement import rater_remarks
from training.arena.answer_style import TOPICS
from training.arena.leaderboard import Leaderboard, make_leaderboard
from training.arena.matchmaking import Matchmaker
from training.arena.results import Filter, read_results
from training.arena.store import KINDS, Battle, Store, Vote, Winner
from training.web import battles
from training.web.lockstep import SIDES

WINNERS: dict[battles.Vote, Winner] = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "both_bad"}
MOST_BOARDS = 20  # leaderboards in memory
FILTERS = {"kinds": list(KINDS), "topics": list(TOPICS)}


class Polls:
    """The store of a running arena.

    Args:
        store: open for writing.
        contestants: of this run, at least two, unlike each other.
        seed: of the draw of pairs; None for a random one.
    """

    def __init__(self, store: Store, contestants: list[battles.Contestant], seed: int | None = None):
        self.store, self.contestants = store, contestants
        self._by_fingerprint = {each.fingerprint: each for each in contestants}
        self._matchmaker = Matchmaker(list(self._by_fingerprint), seed)
        self._boards: dict[Any, tuple[Leaderboard, list[str]]] = {}  # by filter, of `_votes_shown`
        self._votes_shown, self._showing = -1, threading.Lock()

    def open(self) -> None:
        """Enter the contestants in the store, and read their votes of earlier runs."""
        for each in self.contestants:
            self.store.add_contestant(each)
        self._matchmaker.read(self.store, "human")

    def next_pair(self, waiting: list[battles.Battle]) -> tuple[battles.Contestant, battles.Contestant]:
        """Two contestants for a battle, where a vote is expected to correct the ranking most.

        Args:
            waiting: battles without a vote, which count as if they had one.
        """
        pairs = [tuple(battle.sides[side].fingerprint for side in SIDES) for battle in waiting]
        first, second = self._matchmaker.next_pair(pairs)
        return self._by_fingerprint[first], self._by_fingerprint[second]

    def keep(self, battle: battles.Battle) -> None:
        """Write a battle and its vote, both or neither; they are on the disk when this returns.

        Raises:
            OSError, UserError: they cannot be written.
            Rejected: the store has a vote on this battle.
        """
        voter = self.store.salted(battle.voter)
        sides = [battle.sides[side].fingerprint for side in SIDES]
        conversations = [battle.conversation(side, whole=True) for side in SIDES]
        row = Battle(
            *sides,
            voter,
            *conversations,
            battle.settings,
            battle.seed,
            battle.seed,
            battle.leaked,
            battle.id,
            battle.began,
        )
        winner = WINNERS[battle.vote]
        if self.store.add([], [row], [Vote(battle.id, voter, winner)]) != (1, 1):
            raise battles.Rejected(409, "This battle has a vote already.")
        if not battle.leaked:
            self._matchmaker.count(*sides, winner)

    def board(self, chosen: Filter, style: bool) -> tuple[Leaderboard, list[str]]:
        """The leaderboard of the votes that a filter takes, and remarks on it; computed once for the same votes.

        Raises:
            UserError: there are none.
        """
        with self._showing:
            votes = len(self.store.votes())
            if votes != self._votes_shown:
                self._boards, self._votes_shown = {}, votes
            if (chosen, style) not in self._boards:
                board = make_leaderboard(read_results(self.store, chosen), style)
                whole = chosen == Filter(chosen.kind)  # the raters are described by all of their votes
                remarks = [*board.remarks(), *(rater_remarks(self.store, chosen.kind) if whole else ())]
                self._boards = dict([*self._boards.items()][-MOST_BOARDS:]) | {(chosen, style): (board, remarks)}
            return self._boards[chosen, style]


def read_filter(fields: dict[str, Any]) -> tuple[Filter, bool]:
    """The filter of a request, and whether to control for style.

    Raises:
        ValueError: a value that is not one of the choices, or not a number.
    """
    kind: Literal["human", "rule", "model"] = fields.get("kind", "human")
    topic = fields.get("topic") or None
    if kind not in KINDS or topic not in (None, *TOPICS):
        raise ValueError(f"the kinds are {', '.join(KINDS)}, and the topics {', '.join(TOPICS)}")
    lengths = [int(fields[key]) if fields.get(key) else None for key in ("min_words", "max_words")]
    return Filter(kind, topic, *lengths), fields.get("style") == "on"
