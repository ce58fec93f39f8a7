"""The arena under load and under SIGKILL: no error for many voters, and no confirmed vote lost or doubled."""

import asyncio
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time

import httpx2
import pytest
from browser import serving
from puppets import Arena
from terminal import ROOT

from training.arena.store import Store
from training.web.guards import Guard

# An arena in a process of its own, with two instant contestants.
PROGRAM = """
import sys
sys.path[:0] = [{helpers!r}, {root!r}]
from pathlib import Path
import socket
from puppets import Puppet
from training.arena.store import Store
from training.web.arena_app import create_app
from training.web.battles import Battles
from training.web.polls import Polls
from training.web.run import run_pages
pair = [Puppet("zebra-model", "four"), Puppet("yak-model", "five")]
with Store.open(Path({store!r}), writes=True) as store:
    polls = Polls(store, pair)
    polls.open()
    battles = Battles(polls.next_pair, polls.keep, {{}}, [], print)
    run_pages(create_app(battles, polls), socket.create_server(("127.0.0.1", {port})), "127.0.0.1")
"""


async def battle(client, confirmed, times):
    """A whole battle; the identifier of a confirmed vote goes to `confirmed`, seconds of each action to `times`."""

    async def timed(method, path, **options):
        began = time.perf_counter()
        response = await client.request(method, path, **options)
        times.append(time.perf_counter() - began)
        response.raise_for_status()
        return response

    name = (await timed("POST", "/api/battles", json={})).json()["id"]
    await timed("POST", f"/api/battles/{name}/turns", json={"prompt": "2 + 2?"})
    await client.get(f"/api/battles/{name}/events")
    await timed("POST", f"/api/battles/{name}/vote", json={"vote": random.choice("ab")})
    confirmed.append(name)


async def voter(address, battles, confirmed, times):
    async with httpx2.AsyncClient(base_url=address, timeout=120) as client:
        for _ in range(battles):
            await battle(client, confirmed, times)


def test_two_hundred_voters_at_once():
    arena, confirmed, times = Arena(), [], []

    async def all_voters(address):
        await asyncio.gather(*(voter(address, 1, confirmed, times) for _ in range(200)))

    with serving(Guard(arena.app)) as address:
        asyncio.run(all_voters(address))
    assert len(set(confirmed)) == 200 == len(arena.store.votes())
    print(f"median action {1000 * statistics.median(times):.0f} ms, longest {1000 * max(times):.0f} ms")


@pytest.mark.slow
def test_killed_under_load_no_confirmed_vote_is_lost(tmp_path):
    """SIGKILL at random moments; KILLS of the environment repeats it more often."""
    file, confirmed, times = tmp_path / "arena.sqlite", [], []
    kills = int(os.environ.get("KILLS", "2"))
    draw = random.Random(0)
    with httpx2.Client() as probe:
        for _ in range(kills):
            port = free_port()
            program = PROGRAM.format(helpers=str(ROOT / "tests/helpers"), root=str(ROOT), store=str(file), port=port)
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            arena = subprocess.Popen([sys.executable, "-c", program], **quiet)
            address = f"http://127.0.0.1:{port}"
            wait_until_it_answers(probe, address, arena)

            async def load():
                before = len(confirmed)
                voters = [asyncio.ensure_future(voter(address, 10**6, confirmed, times)) for _ in range(8)]
                while len(confirmed) == before:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(draw.uniform(0, 1))
                arena.send_signal(signal.SIGKILL)
                await asyncio.gather(*voters, return_exceptions=True)

            asyncio.run(load())
            arena.wait()
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with Store.open(file) as store:
        votes = [vote.battle for vote in store.votes()]
        battles = {each.id for each in store.battles()}
    assert confirmed and set(confirmed) <= set(votes) and len(votes) == len(set(votes)) and battles == set(votes)
    print(f"{kills} kills, {len(confirmed):,} confirmed votes, {len(votes):,} in the store")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def wait_until_it_answers(probe, address, process):
    while process.poll() is None:
        try:
            return probe.get(f"{address}/api/filters")
        except httpx2.TransportError:
            time.sleep(0.1)
    raise AssertionError("the arena ended")
