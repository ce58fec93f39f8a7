"""Battles without a page: contestants answer the prompts of a file, several battles at once, and a voter votes.

A battle's id is made from what is compared and its number, so that the same command continues after a kill, and plays
no battle twice. A battle and its votes are written together.
"""

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from training.arena.contestants import Contestant, bounded_answer, identity_words, says_name
from training.arena.matchmaking import Matchmaker
from training.arena.results import join_orders
from training.arena.store import Battle, Message, Store, Vote
from training.arena.voters import NoVote, Voter, as_answer
from training.common.errors import UserError, one_line
from training.common.progress import progress_bar

AT_ONCE = 16  # battles in progress, as many as an engine generates answers at a time
OWNER = "scratch arena"  # whose battles they are
Report = Callable[[str], None]


@dataclass
class Tally:
    """Counts of a tournament, or of votes on a store.

    Attributes:
        played: battles that are new in the store.
        failed: battles that do not count, by the contestant that failed.
        voted: battles that the voter has voted on.
        without_vote: battles that it could not vote on, by reason.
    """

    played: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    voted: int = 0
    without_vote: Counter[str] = field(default_factory=Counter)


class Tournament:
    """Battles over a list of prompts.

    Args:
        store: open for writing.
        contestants: at least two, unlike each other.
        prompts: messages of each.
        settings: of sampling, by the names of OpenAI's interface.
        seed: another one gives other battles.
        voter: None to keep the battles without votes.
        report: called with a line when a contestant or the voter fails in a way not seen before.
    """

    def __init__(
        self,
        store: Store,
        contestants: list[Contestant],
        prompts: list[list[Message]],
        settings: dict[str, Any],
        seed: int | None,
        voter: Voter | None,
        report: Report,
    ):
        self.store, self.prompts, self.settings = store, prompts, settings
        self.voter, self.report = voter, report
        self.contestants = {each.fingerprint: each for each in contestants}
        self.words = identity_words(contestants)
        self.identity = json.dumps([sorted(self.contestants), prompts, settings, seed], sort_keys=True)
        self._order = random.Random(self.identity).sample(range(len(prompts)), len(prompts))
        self._matchmaker = Matchmaker(list(self.contestants), seed)
        self._waiting: list[tuple[str, str]] = []  # pairs of battles without a vote
        self._tally = Tally()

    def open(self) -> None:
        """Enter the contestants in the store, and read the votes on them."""
        for each in self.contestants.values():
            self.store.add_contestant(each)
        self._matchmaker.read(self.store, self.voter.kind if self.voter else "human")

    def missing(self, battles: int) -> list[int]:
        """The numbers of the battles, of this many, that the store does not have."""
        known = {battle.id for battle in self.store.battles()}
        return [number for number in range(battles) if self._id(number) not in known]

    async def play(self, battles: int) -> Tally:
        """Play the battles that are missing up to this number.

        Raises:
            UserError: no battle came about, or the voter cannot go on.
        """
        missing = self.missing(battles)
        await in_parallel(self._play, missing, battles)
        if missing and not self._tally.played:
            names = ", ".join(self._tally.failed)
            raise UserError(f"no battle of {len(missing):,} has two answers; {names} failed in all")
        return self._tally

    async def _play(self, number: int) -> None:
        """Play one battle. A contestant that fails costs this battle and no more."""
        pair = self._matchmaker.next_pair(self._waiting)
        self._waiting.append(pair)
        generator = random.Random(f"{self.identity} {number}")
        seeds = [generator.randrange(2**31) for _ in pair]
        prompt = self.prompts[self._order[number % len(self.prompts)]]
        sides = [self.contestants[side] for side in pair]
        answers = await asyncio.gather(*(self._answer(*each) for each in zip(sides, [prompt] * 2, seeds)))
        if None in answers:
            self._waiting.remove(pair)
            return
        battle = Battle(
            *pair,
            self.store.salted(OWNER),
            *([*prompt, *as_answer(text)] for text in answers),
            self.settings,
            *seeds,
            leaked=any(says_name(text, self.words) for text in answers),
            id=self._id(number),
        )
        votes = await cast(self.voter, battle, self._tally, self.report) if self.voter else []
        self.store.add([], [battle], votes)
        self._tally.played += 1
        if votes:
            self._waiting.remove(pair)
        if votes and not battle.leaked:
            (verdict,) = join_orders(votes, {battle.id: battle})
            self._matchmaker.count(*pair, verdict.winner)

    async def _answer(self, contestant: Contestant, prompt: list[Message], seed: int) -> str | None:
        """The answer of a contestant; None if it failed."""
        try:
            pieces = bounded_answer(contestant, prompt, self.settings | {"seed": seed})
            return "".join([piece async for piece in pieces])
        except Exception as error:  # whatever a contestant raises
            if contestant.name not in self._tally.failed:
                reason = one_line(error) or type(error).__name__
                self.report(f"{contestant.name}: {reason}; battles in which it fails do not count")
            self._tally.failed[contestant.name] += 1
            return None

    def _id(self, number: int) -> str:
        return hashlib.sha256(f"{self.identity} {number}".encode()).hexdigest()[:32]


async def vote_on(store: Store, voter: Voter, report: Report) -> Tally:
    """Vote on all battles of a store that lack this voter's vote."""
    tally = Tally()
    voted = {vote.battle for vote in store.votes(rater=voter.rater)}

    async def vote(battle: Battle) -> None:
        store.add([], [], await cast(voter, battle, tally, report))

    battles = list(store.battles())
    await in_parallel(vote, [battle for battle in battles if battle.id not in voted], len(battles))
    return tally


async def cast(voter: Voter, battle: Battle, tally: Tally, report: Report) -> list[Vote]:
    """The votes on a battle, counted; none if the voter has none."""
    try:
        votes = await voter.votes(battle)
    except NoVote as error:
        reason = str(error)
        if reason not in tally.without_vote:
            report(f"no vote of {voter.rater} ({error.example})")
        tally.without_vote[reason] += 1
        return []
    tally.voted += 1
    return votes


async def in_parallel(work: Callable[[Any], Any], items: Iterable[Any], total: int) -> None:
    """Work on items, `AT_ONCE` at a time, with a progress bar.

    Args:
        total: with the items that were done before.
    """
    waiting = list(reversed(list(items)))
    with progress_bar(total=total, initial=total - len(waiting), unit="battle") as bar:

        async def worker() -> None:
            while waiting:
                await work(waiting.pop())
                bar.update()

        workers = [asyncio.create_task(worker()) for _ in range(min(AT_ONCE, len(waiting)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in workers:
                each.cancel()
