import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.common.errors import UserError
from training.corpus.execution.workers import Workers

ROOT = Path(__file__).parents[3]
NUMBERS = range(20)


def start(offset):
    return offset


def add(offset, number):
    return offset + number, os.getpid()


def slowest_first(offset, number):
    time.sleep(0.02 * (number == 0))
    return offset + number


def die(offset, number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_one_worker_is_this_process():
    with Workers(1, start, 5) as workers:
        assert list(workers.map(add, NUMBERS)) == [(5 + number, os.getpid()) for number in NUMBERS]


def test_a_single_task_starts_no_process():
    with Workers(4, start, 5) as workers:
        assert list(workers.map(add, [1])) == [(6, os.getpid())]


def test_several_answer_in_the_order_of_the_tasks():
    with Workers(2, start, 5) as workers:
        assert list(workers.map(slowest_first, NUMBERS)) == [5 + number for number in NUMBERS]


def test_tasks_are_taken_as_they_are_needed():
    taken = []
    with Workers(2, start, 0) as workers:
        results = workers.map(add, (taken.append(number) or number for number in range(1_000)))
        next(results)
        assert len(taken) <= 6


def test_a_killed_worker_is_one_line():
    with Workers(2, start, 0) as workers, pytest.raises(UserError, match="killed.*--workers 1"):
        list(workers.map(die, NUMBERS))


def test_workers_end_with_their_parent():
    program = (
        "import time; from training.corpus.execution.workers import Workers\n"
        "from tests.corpus.execution.test_workers import start, add\n"
        "if __name__ == '__main__':\n"
        "    with Workers(2, start, 0) as workers:\n"
        "        print(*{pid for _, pid in workers.map(add, range(50))}, flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert workers
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
