"""Small stores of an arena, made for tests."""

from pathlib import Path
from typing import Any

from training.arena.store import Battle, Contestant, Store, Vote

MODELS = [Contestant(name, f"sha:{name}") for name in ("old", "new", "other")]


def conversation(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def battle(a: str = "old", b: str = "new", voter: str = "anna", prompt: str = "Why?", **others: Any) -> Battle:
    answers = {f"conversation_{side}": conversation(prompt, f"I am answer {side}.") for side in "ab"}
    return Battle(f"sha:{a}", f"sha:{b}", voter, **(answers | others))


def make_store(path: Path, *outcomes: tuple[Battle, str]) -> Store:
    """An open store with battles of `MODELS`, and the human vote on each."""
    store = Store.open(path, writes=True)
    for contestant in MODELS:
        store.add_contestant(contestant)
    for number, (each, winner) in enumerate(outcomes):
        store.begin(each)
        store.vote(Vote(each.id, each.voter, winner, time=1e9 + number))
    return store
