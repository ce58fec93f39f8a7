"""Neither pace nor piece sizes tell which of two contestants writes which answer."""

import asyncio

import pytest

from training.web import lockstep
from training.web.lockstep import SIDES, Pair


class Clock:
    """Time that passes only when the code under test sleeps."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(lockstep.time, "monotonic", lambda: self.now)


def play(clock, pair, speeds, lengths, until=60.0):
    """Write answers of these lengths at these speeds, in characters per second; return the steps that a page sees."""
    steps, since, began = [], 0, clock.now
    while not pair.done and clock.now < began + until:
        clock.now += lockstep.TICK
        for side, speed, length in zip(SIDES, speeds, lengths, strict=True):
            answer = pair.answers[side]
            answer.text = "x" * min(length, int(speed * (clock.now - began)))
            answer.ended = len(answer.text) == length
        pair.advance()
        steps.append({side: len(text) for side, text in pair.seen(since).items()})
        since = pair.shown
    assert pair.done
    return steps


def guess(steps):
    """The side that looks faster, with more characters while both are still written; None if they look alike."""
    ahead = {side: 0 for side in SIDES}
    total = {side: 0 for side in SIDES}
    ends = {side: sum(step[side] for step in steps) for side in SIDES}
    for step in steps:
        for side in SIDES:
            total[side] += step[side]
        if all(total[side] < ends[side] for side in SIDES) and total["a"] != total["b"]:
            ahead["a" if total["a"] > total["b"] else "b"] += 1
    return max(ahead, key=ahead.get) if any(ahead.values()) else None


@pytest.mark.parametrize("speeds", [(20, 400), (400, 20), (10_000, 15)])
def test_both_sides_show_the_same_length_until_one_has_ended(monkeypatch, speeds):
    assert guess(play(Clock(monkeypatch), Pair(started=100.0), speeds, (300, 300))) is None


def test_the_attack_finds_the_faster_side_without_the_lockstep(monkeypatch):
    everything = lambda pair, since=0: {side: answer.text[since:] for side, answer in pair.answers.items()}  # noqa: E731
    monkeypatch.setattr(Pair, "seen", everything)
    clock, pair = Clock(monkeypatch), Pair(started=100.0)
    steps, seen = [], {side: 0 for side in SIDES}
    for _ in range(20):
        clock.now += lockstep.TICK
        for side, speed in zip(SIDES, (20, 400), strict=True):
            pair.answers[side].text = "x" * min(300, int(speed * (clock.now - 100)))
        lengths = {side: len(text) for side, text in pair.seen().items()}
        steps.append({side: lengths[side] - seen[side] for side in SIDES})
        seen = lengths
    assert guess(steps) == "b"


@pytest.mark.parametrize("speeds", [(80, 80), (80, 3_000), (3_000, 80), (20, 3_000), (3_000, 20)])
def test_the_pace_stays_when_one_has_ended(monkeypatch, speeds):
    """Whether the slower or the faster model has ended, the other goes on as slowly as both went before."""
    lengths = (2 * min(speeds), 10 * min(speeds))
    steps = play(Clock(monkeypatch), Pair(started=100.0), speeds, lengths)
    both = [step["b"] for step in steps if step["a"]]
    alone = [step["b"] for step in steps[len(both) + 1 :] if not step["a"]]
    assert sum(alone) / len(alone) == pytest.approx(sum(both) / len(both), rel=0.2)


def test_an_empty_answer_does_not_hold_back_the_other(monkeypatch):
    play(Clock(monkeypatch), Pair(started=100.0), (100, 100), (0, 500))


def test_steps_carry_both_sides_and_end(monkeypatch):
    pair = Pair()

    async def write():
        for side in SIDES:
            pair.answers[side].text, pair.answers[side].ended = "same length", True
        return [step async for step in pair.steps(0)]

    assert [list(step) for step in asyncio.run(write())] == [["a", "b"]]
