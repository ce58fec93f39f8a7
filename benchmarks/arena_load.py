"""Latency of the arena's page with many voters at once, whose answers are instant.

    python -m benchmarks.arena_load [--voters 200] [--battles 5] [--pause 0]

Server and voters have a process each. A voter plays battle after battle: begin, prompt, the stream of the answers,
vote. Without a pause each sends its next request as soon as it has the last response, so the waiting times of one
server process are the number of voters times the processor time of an action. People read in between: `--pause 5` is
the mean of an exponential distribution, in seconds, before each prompt and each vote.

Reported: median, 90 % and longest time of each action in milliseconds, and the processor time of the server for each
action, which depends on the machine but not on what else runs. The last line is everything as JSON.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ACTIONS = ("begin", "prompt", "vote")


class Instant:
    """A contestant that answers at once."""

    def __init__(self, name: str, text: str):
        self.name = self.fingerprint = name
        self.text = text

    async def answer(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> AsyncIterator[str]:
        """The one piece of its answer."""
        yield self.text


def serve_arena(listener: socket.socket, folder: str) -> None:
    """Serve an arena of two instant contestants until SIGTERM, as `scratch arena` does."""
    from training.arena.store import Store
    from training.serving.listening import serve
    from training.web.arena_app import create_app
    from training.web.battles import Battles
    from training.web.guards import Guard
    from training.web.polls import Polls

    pair = [Instant("zebra-model", "It is four."), Instant("yak-model", "It is five.")]
    with Store.open(Path(folder) / "arena.sqlite", writes=True) as store:
        polls = Polls(store, pair)
        polls.open()
        battles = Battles(polls.next_pair, polls.keep, {}, [each.name for each in pair], print)
        serve(Guard(create_app(battles, polls)), listener)


class Browser:
    """A connection that is kept open, and as little of HTTP as the server needs."""

    def __init__(self, port: int):
        self.port, self.cookie = port, ""

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """The body of the response.

        Raises:
            RuntimeError: a status other than 200.
        """
        if self.reader.at_eof():  # the server closes connections that are idle for some seconds
            await self.__aenter__()
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", self.cookie]
        if body is not None:
            lines += ["content-type: application/json", f"content-length: {len(content)}"]
        self.writer.write("\r\n".join([*filter(None, lines), "", ""]).encode() + content)
        status, *headers = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        named = dict(line.lower().split(": ", 1) for line in headers if line)
        if "set-cookie" in named:
            found = next(line for line in headers if line.lower().startswith("set-cookie"))
            self.cookie = "cookie: " + found.split(": ", 1)[1].split(";")[0]
        if "content-length" in named:
            response = await self.reader.readexactly(int(named["content-length"]))
        else:
            response = b""
            while size := int(await self.reader.readline(), 16):
                response += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
        if " 200 " not in status:
            raise RuntimeError(f"{method} {path}: {status} {response.decode()}")
        return response

    async def __aenter__(self) -> "Browser":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()


async def vote_often(port: int, battles: int, pause: float, times: dict[str, list[float]]) -> None:
    """One voter's battles; the seconds of each action go to `times`."""

    async def think() -> None:
        if pause:
            await asyncio.sleep(random.expovariate(1 / pause))

    async with Browser(port) as browser:

        async def act(action: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
            began = time.perf_counter()
            response = await browser.request("POST", path, body)
            times[action].append(time.perf_counter() - began)
            return json.loads(response)

        for _ in range(battles):
            name = (await act("begin", "/api/battles", {}))["id"]
            await think()
            await act("prompt", f"/api/battles/{name}/turns", {"prompt": "2 + 2?"})
            await browser.request("GET", f"/api/battles/{name}/events")
            await think()
            await act("vote", f"/api/battles/{name}/vote", {"vote": random.choice("ab")})


def measure(voters: int, battles: int, pause: float) -> dict[str, Any]:
    """Milliseconds of each action, and the server's processor time in milliseconds for an action."""
    times: dict[str, list[float]] = defaultdict(list)
    listener = socket.create_server(("127.0.0.1", 0), backlog=voters)
    port = listener.getsockname()[1]

    async def load(each: int) -> None:
        await asyncio.gather(*(vote_often(port, each, pause, times) for _ in range(voters)))

    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        server = context.Process(target=serve_arena, args=(listener, folder))
        server.start()
        try:
            asyncio.run(load(1))  # warms up
            times.clear()
            process = psutil.Process(server.pid)
            before, began = sum(process.cpu_times()[:2]), time.perf_counter()
            asyncio.run(load(battles))
            seconds, used = time.perf_counter() - began, sum(process.cpu_times()[:2]) - before
        finally:
            server.terminate()
            server.join()
    actions = {action: times[action] for action in ACTIONS}
    actions["all"] = [seconds for each in actions.values() for seconds in each]
    found = {
        action: {
            name: round(1000 * float(np.quantile(each, share)), 1)
            for name, share in (("median", 0.5), ("90%", 0.9), ("longest", 1.0))
        }
        for action, each in actions.items()
    }
    count = len(actions["all"])
    return found | {"processor_ms": round(1000 * used / count, 3), "actions_per_second": round(count / seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voters", type=int, default=200)
    parser.add_argument("--battles", type=int, default=5, help="of each voter, after one that is not measured")
    parser.add_argument("--pause", type=float, default=0.0, help="mean seconds before each prompt and each vote")
    arguments = parser.parse_args()
    found = measure(arguments.voters, arguments.battles, arguments.pause)
    print("| action | median ms | 90 % | longest |\n|---|---:|---:|---:|")
    for action in (*ACTIONS, "all"):
        print(f"| {action} | {' | '.join(f'{value:.0f}' for value in found[action].values())} |")
    print(f"\nserver: {found['processor_ms']:.2f} ms of processor time an action")
    print(json.dumps({"benchmark": "arena_load", "conditions": vars(arguments), **found}))


if __name__ == "__main__":
    main()
