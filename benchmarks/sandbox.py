"""Programs per second in the sandbox, compared with a new Python for each program, without isolation.

    python -m benchmarks.sandbox                     # a small function, a minute on a laptop
    python -m benchmarks.sandbox --programs 500 --workers 4 --rounds 9
    python -m benchmarks.sandbox --humaneval HumanEval.jsonl    # how many canonical and empty solutions pass

Contestants take turns within every round. A figure is the median over rounds, a ratio the median of the ratios within
rounds (above 1: faster than a new Python). The program is a small function with three assertions, so the benchmark
measures start, isolation and end. "A new Python" is `python -I -S -c`, the fastest start that Python has. Processor
time is that of this process and all that it starts; other work on the machine changes it little. The last line is the
result as JSON.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import psutil
import torch

from benchmarks.machine import processor_name
from training.sandbox import SandboxLimits, check_isolation, run_all
from training.sandbox.pool import ISOLATIONS, Worker

SOLUTION = "def double(x):\n    return 2 * x\n"
TESTS = "assert double(2) == 4\nassert double(-1) == -2\nassert double('ab') == 'abab'\n"
BASELINE = "a new Python, no isolation"


class Servers:
    """Fork servers of one kind of isolation, each with its own thread."""

    def __init__(self, isolation: str, count: int):
        self.workers = [Worker(isolation) for _ in range(count)]

    def run(self, programs: int, apart: bool) -> None:
        """Run the program so many times, with the tests in a second process if `apart`."""
        program, tests = (SOLUTION, TESTS) if apart else (SOLUTION + TESTS, None)
        request = {"program": program, "tests": tests, "limits": asdict(SandboxLimits())}

        def serve(place: int) -> None:
            for _ in range(place, programs, len(self.workers)):
                assert self.workers[place].run(request).passed

        with ThreadPoolExecutor(len(self.workers)) as threads:
            list(threads.map(serve, range(len(self.workers))))

    def processor_seconds(self) -> float:
        """Processor time of the servers, and of those of their processes that have ended."""
        servers = [psutil.Process(worker.process.pid) for worker in self.workers]
        processes = [*servers, *(child for server in servers for child in server.children(recursive=True))]
        return sum(sum(process.cpu_times()[:4]) for process in processes)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


def processor_seconds(servers: Servers | None) -> float:
    """Processor time of this process, and of its servers or of the processes that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + (servers.processor_seconds() if servers else ended.ru_utime + ended.ru_stime)


def run_plain(programs: int, workers: int) -> None:
    """Run the program so many times, each in a new Python."""
    def start(_: int) -> None:
        subprocess.run([sys.executable, "-I", "-S", "-c", SOLUTION + TESTS], check=True)

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(start, range(programs)))


def check_humaneval(path: Path, workers: int) -> None:
    """Print how many canonical and empty solutions pass, in one process and with the tests in a second one."""
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tests = [f"{item['test']}\ncheck({item['entry_point']})" for item in items]
    passed = {}
    for kind in ("canonical", "empty"):
        answers = [item["canonical_solution"] if kind == "canonical" else "    pass\n" for item in items]
        solutions = [item["prompt"] + answer for item, answer in zip(items, answers)]
        whole = [f"{solution}\n{test}" for solution, test in zip(solutions, tests)]
        passed[kind] = sum(outcome.passed for outcome in run_all(whole, workers))
        passed[f"{kind}, tests apart"] = sum(outcome.passed for outcome in run_all(solutions, workers, tests=tests))
    for kind, count in passed.items():
        print(f"{kind:24} {count} of {len(items)} pass")
    conditions = {"isolation": check_isolation(), "workers": workers, "items": len(items)}
    print(json.dumps({"benchmark": "sandbox", "conditions": conditions, "passed": passed}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=100, help="programs per contestant and round")
    parser.add_argument("--workers", type=int, default=1, help="programs running at a time")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, in which each contestant runs once")
    parser.add_argument("--humaneval", type=Path, help="the original HumanEval file; check it, time nothing")
    arguments = parser.parse_args()
    if arguments.humaneval:
        check_humaneval(arguments.humaneval, arguments.workers)
        return

    contestants: dict[str, Callable[[], None]] = {BASELINE: lambda: run_plain(arguments.programs, arguments.workers)}
    server_of: dict[str, Servers | None] = {BASELINE: None}
    servers = []
    for isolation in ISOLATIONS:
        with contextlib.suppress(OSError, EOFError):  # this system does not offer it
            servers.append(made := Servers(isolation, arguments.workers))
            for apart in (False, True):
                name = f"{isolation}, tests apart" if apart else isolation
                contestants[name] = lambda made=made, apart=apart: made.run(arguments.programs, apart)
                server_of[name] = made
    for contestant in contestants.values():
        contestant()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, contestant in contestants.items():
            before, started = processor_seconds(server_of[name]), time.perf_counter()
            contestant()
            seconds[name].append(time.perf_counter() - started)
            spent[name].append(processor_seconds(server_of[name]) - before)
    for server in servers:
        server.close()

    results = {}
    for name, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds[BASELINE], times)]
        rate = arguments.programs / statistics.median(times)
        processor = 1000 * statistics.median(spent[name]) / arguments.programs
        results[name] = {"programs_per_second": round(rate, 1), "ratio": round(statistics.median(ratios), 3)}
        results[name] |= {"processor_ms": round(processor, 2)}
    conditions = {"programs": arguments.programs, "workers": arguments.workers, "rounds": arguments.rounds}
    conditions |= {"processor": processor_name(torch.device("cpu")), "cores": os.cpu_count()}
    print(f"{conditions['processor']}, {conditions['cores']} cores, {arguments.workers} at a time")
    print(f"{'':30}  programs/s  times as fast  processor ms")
    for name, figures in results.items():
        row = f"{figures['programs_per_second']:10.1f}  {figures['ratio']:13.2f}  {figures['processor_ms']:12.1f}"
        print(f"{name:30}  {row}")
    print(json.dumps({"benchmark": "sandbox", "conditions": conditions, "results": results}))


if __name__ == "__main__":
    main()
