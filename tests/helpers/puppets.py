"""An arena with contestants that do as told, for tests of its pages and of attacks on them."""

import asyncio
import tempfile
from pathlib import Path

from training.arena.store import Store
from training.web.arena_app import create_app
from training.web.battles import Battles
from training.web.polls import Polls


class Puppet:
    """A contestant that says its pieces, or raises."""

    def __init__(self, name, *pieces, delay=0.0, fails=None):
        self.name = self.fingerprint = name
        self.pieces, self.delay, self.fails = pieces, delay, fails
        self.asked = []

    async def answer(self, messages, settings):
        self.asked.append((messages, settings))
        for piece in self.pieces:
            await asyncio.sleep(self.delay)
            yield piece
        if self.fails:
            raise self.fails


class Arena:
    """Battles between two puppets, the store and the application around them, and what they kept and reported."""

    def __init__(self, first=None, second=None):
        pair = (first or Puppet("zebra-model", "four"), second or Puppet("yak-model", "five"))
        self.kept, self.reports = [], []
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name) / "arena.sqlite", writes=True)
        self.polls = Polls(self.store, list(pair), seed=0)
        self.polls.open()
        names = [contestant.name for contestant in pair]
        self.battles = Battles(self.polls.next_pair, self.keep, {"temperature": 1.0}, names, self.reports.append)
        self.app = create_app(self.battles, self.polls)

    def keep(self, battle):
        """Write a battle to the store, and remember it."""
        self.polls.keep(battle)
        self.kept.append(battle)


def post(client, path, body=None):
    return client.post(path, json=body or {})


def play(client, prompt="2 + 2?"):
    """A battle up to its vote; returns its identifier, and everything that the page received."""
    began = post(client, "/api/battles")
    name = began.json()["id"]
    asked = post(client, f"/api/battles/{name}/turns", {"prompt": prompt})
    events = client.get(f"/api/battles/{name}/events")
    seen = client.get(f"/api/battles/{name}")
    return name, [began, asked, events, seen]
