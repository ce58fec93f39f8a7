"""Two answers shown in lockstep, so that neither speed nor the size of pieces tells which model writes which.

Both sides always show the same number of characters, unless one answer has ended: the shown length follows the slower
of the two. Once one has ended, the other goes on no faster than both did before; otherwise the pace would tell whether
the slower or the faster model has ended.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

SIDES = ("a", "b")
TICK = 0.1  # seconds between two steps of the pages
# A long answer beside one of fewer than FEW characters, which set no pace, is shown at SLOWEST characters per second.
FEW, SLOWEST = 10, 50


@dataclass
class Answer:
    """An answer that is being written.

    Attributes:
        ended: whether it is complete.
        failed: whether the contestant failed, so that the battle does not count.
    """

    text: str = ""
    ended: bool = False
    failed: bool = False


@dataclass
class Pair:
    """The two answers of a turn, and how much of them may be seen."""

    answers: dict[str, Answer] = field(default_factory=lambda: {side: Answer() for side in SIDES})
    started: float = field(default_factory=time.monotonic)
    shown: int = 0
    _pace: float | None = None  # characters per second, once one answer is shown to its end
    _since: float = 0.0
    _from: int = 0

    @property
    def failed(self) -> bool:
        return any(answer.failed for answer in self.answers.values())

    @property
    def done(self) -> bool:
        """Whether both answers have ended and are shown to their ends."""
        return all(answer.ended and len(answer.text) <= self.shown for answer in self.answers.values())

    def seen(self, since: int = 0) -> dict[str, str]:
        """The text of both sides that may be seen, from character `since` on."""
        return {side: answer.text[since : self.shown] for side, answer in self.answers.items()}

    def advance(self) -> None:
        """Let as much be seen as both sides have."""
        now = time.monotonic()
        lengths = [len(answer.text) for answer in self.answers.values()]
        limits = [length for length, answer in zip(lengths, self.answers.values()) if not answer.ended]
        common = min([*limits, max(lengths)])
        first_end = min((len(answer.text) for answer in self.answers.values() if answer.ended), default=None)
        if first_end is None or common <= first_end:
            self.shown = max(self.shown, common)
            return
        if self._pace is None:  # one answer has been shown to its end: from now on no faster than before
            self.shown = max(self.shown, first_end)
            pace = first_end / max(now - self.started, TICK)
            self._pace, self._since, self._from = max(pace, SLOWEST) if first_end < FEW else pace, now, self.shown
        allowed = self._from + int(self._pace * (now - self._since))
        self.shown = max(self.shown, min(common, allowed))

    async def steps(self, since: int) -> AsyncIterator[dict[str, str]]:
        """The newly seen text of both sides, each `TICK`, until both answers are done or one has failed."""
        while True:
            self.advance()
            if self.shown > since:
                yield self.seen(since)
                since = self.shown
            if self.done or self.failed:
                return
            await asyncio.sleep(TICK)
