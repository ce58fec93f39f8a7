"""An arena with contestants that do as told, for tests of its pages and of attacks on them."""

import asyncio

from training.web.arena_app import create_app
from training.web.battles import Battles


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
    """Battles between two puppets, the application around them, and what it kept and reported."""

    def __init__(self, first=None, second=None):
        pair = (first or Puppet("zebra-model", "four"), second or Puppet("yak-model", "five"))
        self.kept, self.reports = [], []
        names = [contestant.name for contestant in pair]
        self.battles = Battles(lambda: pair, self.kept.append, {"temperature": 1.0}, names, self.reports.append)
        self.app = create_app(self.battles, lambda topic, length: {})


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
