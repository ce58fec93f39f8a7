"""Battles: a prompt to two contestants at random sides, their answers in lockstep, and one vote that reveals the names.

Nothing that a page receives before the vote says or tells who answers: identifiers are random, both sides' text comes
in the same events at the same pace, and a failure ends the battle with a line that names neither side.
"""

import asyncio
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from training.arena.contestants import Contestant, bounded_answer, says_name
from training.common.errors import UserError, one_line
from training.web.lockstep import SIDES, Pair

Vote = Literal["a", "b", "tie", "both_bad"]
VOTES = ("a", "b", "tie", "both_bad")

LONGEST_PROMPT = 8_000  # characters
MOST_TURNS = 20
UNREAD_SECONDS = 30  # after which answers that nobody reads are stopped
MOST_OPEN = 1_000  # battles in memory
MOST_ANSWERING = 400  # battles whose answers are being written
MOST_OF_A_VOTER = 4  # battles of one voter in memory, so that one cannot displace those of others
MOST_A_MINUTE = 60  # turns of one voter
IDLE_SECONDS = 1800  # after which a battle that waits for its voter may be dropped

FAILED = "One of the two models failed to answer."


class Rejected(Exception):
    """A request that is not accepted, with the status of the response."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


@dataclass
class Turn:
    """A prompt and the two answers to it."""

    prompt: str
    pair: Pair = field(default_factory=Pair)


@dataclass
class Battle:
    """A battle of one voter.

    Attributes:
        sides: the contestant of each side.
        settings: of sampling.
        seed: of both answers; turns count on from it.
        state: "open" until a vote or a failure, then "voted" or "void".
        leaked: whether an answer says a contestant's name, so that the vote is kept but not rated.
        voting: whether a vote is being written.
        touched: when its voter last asked for it, in seconds of a clock.
    """

    id: str
    voter: str
    sides: dict[str, Contestant]
    settings: dict[str, Any]
    seed: int
    began: float = field(default_factory=time.time)
    turns: list[Turn] = field(default_factory=list)
    state: Literal["open", "voted", "void"] = "open"
    vote: Vote | None = None
    message: str = ""
    leaked: bool = False
    voting: bool = False
    touched: float = field(default_factory=time.monotonic)
    readers: int = 0
    unread_since: float = field(default_factory=time.monotonic)
    tasks: list[asyncio.Task] = field(default_factory=list)

    @property
    def answering(self) -> bool:
        return bool(self.turns) and self.state == "open" and not self.turns[-1].pair.done

    @property
    def idle(self) -> bool:
        """Whether it may be dropped: it has ended or not begun, or its voter seems to be gone."""
        gone = time.monotonic() - self.touched > IDLE_SECONDS
        return self.state != "open" or not self.turns or (gone and not self.answering)

    def conversation(self, side: str, whole: bool = False) -> list[dict[str, str]]:
        """The messages that a side has seen and written, up to the last prompt, or with its answer if `whole`."""
        messages = []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": turn.pair.answers[side].text})
        return messages if whole else messages[:-1]

    def public(self) -> dict[str, Any]:
        """The part of it that its voter may know; names only after the vote."""
        turns = [
            {"prompt": turn.prompt, **turn.pair.seen(), "done": turn.pair.done or self.state != "open"}
            | {"shown": turn.pair.shown}
            for turn in self.turns
        ]
        known = {"id": self.id, "state": self.state, "turns": turns, "message": self.message}
        if self.state == "voted":
            known |= {"vote": self.vote, "names": {side: each.name for side, each in self.sides.items()}}
        return known


class Battles:
    """All battles of a running arena.

    Args:
        draw: given the battles that wait for a vote, the next two contestants.
        keep: called in a thread with a battle and its vote, before the vote is confirmed; it makes the vote durable.
        settings: sampling settings of all answers.
        names: words that an answer may not say in a battle that counts.
        report: called with a line for the terminal when a contestant fails.
        seed: of the answers' seeds; None for random ones.
    """

    def __init__(
        self,
        draw: Callable[[list[Battle]], tuple[Contestant, Contestant]],
        keep: Callable[[Battle], None],
        settings: dict[str, Any],
        names: list[str],
        report: Callable[[str], None],
        seed: int | None = None,
    ):
        self.draw, self.keep, self.settings, self.report = draw, keep, settings, report
        self._seeds = random.Random(seed)
        self.names = names
        self.open: OrderedDict[str, Battle] = OrderedDict()
        self._of_voter: dict[str, dict[str, Battle]] = {}  # those in `open`
        self._unfinished: dict[str, Battle] = {}  # those in `open` without a vote or a failure
        self.recent: dict[str, list[float]] = {}

    def begin(self, voter: str) -> Battle:
        """A new battle, of contestants that are drawn now, at sides that are drawn now.

        Raises:
            Rejected: every battle in memory is in use.
        """
        own = self._of_voter.get(voter, {})
        if len(own) >= MOST_OF_A_VOTER:
            self._forget(next(iter(own.values())))
        if len(self.open) >= MOST_OPEN:
            idle = next((battle for battle in self.open.values() if battle.idle), None)
            if idle is None:
                raise Rejected(503, "Too many battles are open; try again in a few minutes.")
            self._forget(idle)
        pair = list(self.draw([other for other in self._unfinished.values() if not other.idle]))
        secrets.SystemRandom().shuffle(pair)
        sides = dict(zip(SIDES, pair, strict=True))
        battle = Battle(secrets.token_urlsafe(16), voter, sides, self.settings, self._seeds.randrange(2**31))
        self.open[battle.id] = self._unfinished[battle.id] = battle
        self._of_voter.setdefault(voter, {})[battle.id] = battle
        return battle

    def find(self, name: str, voter: str) -> Battle:
        """A battle of this voter.

        Raises:
            Rejected: none of this name, or another voter's; the answer is the same for both.
        """
        battle = self.open.get(name)
        if battle is None or battle.voter != voter:
            raise Rejected(404, "This battle has ended. Begin a new one.")
        battle.touched = time.monotonic()
        return battle

    def ask(self, battle: Battle, prompt: Any) -> None:
        """Begin a turn: both contestants answer a prompt.

        Raises:
            Rejected: a prompt that is empty or too long, or a battle that cannot go on.
        """
        if not isinstance(prompt, str) or not prompt.strip():
            raise Rejected(400, "The prompt is empty.")
        if len(prompt) > LONGEST_PROMPT:
            raise Rejected(400, f"The prompt is longer than {LONGEST_PROMPT:,} characters; shorten it.")
        if battle.state != "open" or battle.voting:
            raise Rejected(409, "This battle has ended. Begin a new one.")
        if battle.answering:
            raise Rejected(409, "Both models are still answering.")
        if sum(other.answering for other in self._unfinished.values()) >= MOST_ANSWERING:
            raise Rejected(503, "Too many battles at once; try again in a minute.")
        if len(battle.turns) >= MOST_TURNS:
            raise Rejected(409, f"A battle has at most {MOST_TURNS} turns. Vote, or begin a new one.")
        self._check_rate(battle.voter)
        battle.turns.append(Turn(prompt))
        battle.unread_since = time.monotonic()
        battle.tasks = [asyncio.create_task(self._answer(battle, side)) for side in SIDES]
        battle.tasks.append(asyncio.create_task(self._stop_unread(battle)))

    async def steps(self, battle: Battle, since: int) -> AsyncIterator[dict[str, Any]]:
        """Events of the last turn from character `since` on, and at the end the whole battle."""
        battle.readers += 1
        try:
            async for step in battle.turns[-1].pair.steps(since):
                yield step
        finally:
            battle.readers -= 1
            battle.unread_since = time.monotonic()
        yield battle.public()

    def stop(self, battle: Battle) -> None:
        """End both answers where they are shown; what a faster model has written beyond that is dropped."""
        if not battle.answering:
            return
        pair = battle.turns[-1].pair
        for answer in pair.answers.values():
            answer.text, answer.ended = answer.text[: pair.shown], True
        self._cancel(battle)
        if not all(answer.text.strip() for answer in pair.answers.values()):
            self._void(battle, "The answers were stopped before they began.")

    async def vote(self, battle: Battle, vote: Any) -> None:
        """Record the vote and reveal the names.

        Raises:
            Rejected: not a vote, a second vote, nothing to vote on, or the vote cannot be written.
        """
        if vote not in VOTES:
            raise Rejected(400, f"A vote is one of {', '.join(VOTES)}.")
        if battle.state != "open" or battle.voting:
            raise Rejected(409, "This battle has ended, and each has one vote.")
        if not battle.turns or battle.answering:
            raise Rejected(409, "Vote when both answers are complete.")
        battle.vote, battle.voting = vote, True
        texts = [answer.text for turn in battle.turns for answer in turn.pair.answers.values()]
        battle.leaked = any(says_name(text, self.names) for text in texts)
        try:
            await asyncio.to_thread(self.keep, battle)
        except (OSError, UserError) as error:
            self.report(f"a vote could not be written: {one_line(error)}")
            raise Rejected(507, "The vote could not be written. Tell who runs this arena, then vote again.") from None
        finally:
            battle.voting = False
        battle.state = "voted"
        self._unfinished.pop(battle.id, None)
        if battle.leaked:
            battle.message = "An answer names a model, so this vote is kept but does not count for the rating."

    async def _answer(self, battle: Battle, side: str) -> None:
        """Write one side's answer; a contestant that fails, hangs or does not end costs this battle and no more."""
        contestant, answer = battle.sides[side], battle.turns[-1].pair.answers[side]
        settings = battle.settings | {"seed": (battle.seed + len(battle.turns) - 1) % 2**31}
        try:
            async for piece in bounded_answer(contestant, battle.conversation(side), settings):
                answer.text += piece
        except Exception as error:  # whatever a contestant raises
            self.report(f"{contestant.name}: {one_line(error) or type(error).__name__}; the battle does not count")
            self._void(battle, FAILED)
            return
        answer.ended = True

    async def _stop_unread(self, battle: Battle) -> None:
        while battle.answering:
            await asyncio.sleep(1)
            if not battle.readers and time.monotonic() - battle.unread_since > UNREAD_SECONDS:
                self._void(battle, "Nobody was reading the answers.")

    def _void(self, battle: Battle, message: str) -> None:
        battle.state, battle.message = "void", message
        self._unfinished.pop(battle.id, None)
        for answer in battle.turns[-1].pair.answers.values():
            answer.failed = True
        self._cancel(battle)

    def _cancel(self, battle: Battle) -> None:
        for task in battle.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _forget(self, battle: Battle) -> None:
        if battle.answering:
            self._void(battle, "A newer battle took its place.")
        del self.open[battle.id]
        self._unfinished.pop(battle.id, None)
        del self._of_voter[battle.voter][battle.id]
        if not self._of_voter[battle.voter]:
            del self._of_voter[battle.voter]

    def _check_rate(self, voter: str) -> None:
        now = time.monotonic()
        recent = [moment for moment in self.recent.get(voter, []) if now - moment < 60]
        if len(recent) >= MOST_A_MINUTE:
            raise Rejected(429, "Too many prompts in a minute; wait a little.")
        self.recent[voter] = [*recent, now]
        if len(self.recent) > MOST_OPEN:  # those who have not asked for a minute
            self.recent = {name: moments for name, moments in self.recent.items() if now - moments[-1] < 60}
