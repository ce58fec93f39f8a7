"""Attacks on what the sandbox's processes share: a server that prepares them in advance, and its folders /tmp."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from isolated import run

from training.common.errors import UserError
from training.sandbox import pool, preload, run_all, run_python
from training.sandbox import worker as callers
from training.sandbox.pool import Worker

MB = 1 << 20
OPEN = "import os\ndef opened():\n  found = []\n  for fd in range(256):\n    try: os.fstat(fd); found.append(fd)\n" + (
    "    except OSError: pass\n  return found\n"
)
# Counts the pages of this process that contain a text, without containing it: both are compared with every byte
# increased. A pipe tells which addresses can be read.
SEARCH = """
import ctypes, os
INCREASED = {increased!r}
TABLE = bytes((byte + 1) % 256 for byte in range(256))
libc = ctypes.CDLL(None, use_errno=True)
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
reader, writer = os.pipe()

def pages():
    near = [id(value) for value in (*vars().values(), *globals().values(), object(), [], "a b", 1.5, b"", libc)]
    for start in sorted({address >> 21 << 21 for address in near}):
        for page in range(start - (4 << 20), start + (6 << 20), 4096):
            if libc.write(writer, page, 4096) == 4096:
                yield os.read(reader, 4096)

def count():
    return sum(INCREASED in page.translate(TABLE) for page in pages())
"""


def test_a_program_finds_no_descriptor_but_its_own(worker):
    assert run(worker, OPEN + "assert opened() == [0, 1, 2, 3], opened()").passed
    outcome = run(worker, OPEN, "assert opened() == [0, 1, 2, 3, 4], opened()")
    assert outcome.passed, outcome
    outcome = run(worker, "", OPEN + "assert opened() == [0, 1, 2, 3, 4, 5], opened()")
    assert outcome.passed, outcome


def test_a_program_finds_nothing_of_others_in_its_memory(worker):
    secret = "tulip-and-rose-42"
    assert run(worker, f"text = {secret!r}\nprint(text)").output == secret + "\n"
    assert run(worker, f"def f(): return {secret!r}", f"assert f() == {secret!r}, {secret!r}").passed
    assert run(worker, f"raise ValueError({secret!r})").detail.endswith(secret)

    search = SEARCH.replace("{increased!r}", repr(bytes(byte + 1 for byte in secret.encode())))
    outcome = run(worker, search + "own = bytes(byte - 1 for byte in INCREASED) * 9\nprint(count())")
    assert outcome.passed and int(outcome.output) > 0, outcome  # the search finds what is there
    for _ in range(3):
        outcome = run(worker, search + "print(count())")
        assert outcome.passed and int(outcome.output) == 0, outcome


SIBLINGS = """
import ctypes, os
libc = ctypes.CDLL(None)
kill, tgkill = (62, 234) if os.uname().machine == "x86_64" else (129, 131)
def double(x):
    for pid in {os.getppid() or 1, *range(max(2, os.getpid() - 6), os.getpid() + 7)} - {os.getpid()}:
        try: os.kill(pid, 9)
        except OSError: pass
        libc.syscall(kill, pid, 9); libc.syscall(tgkill, pid, pid, 9); libc.syscall(kill, -pid, 9)
    for group in (0, -1):
        try: os.kill(group, 9)
        except OSError: pass
        libc.syscall(kill, group, 9)
    return 2 * x
"""


def test_a_program_cannot_kill_its_siblings(worker):
    servers = [worker.process.pid, *_children(worker)[: worker.kind == "namespaces"]]

    assert run(worker, SIBLINGS, "assert double(2) == 4").passed
    assert run(worker, SIBLINGS + "assert double(2) == 4").passed
    assert servers == [worker.process.pid, *_children(worker)[: worker.kind == "namespaces"]]


def _children(worker: Worker) -> list[int]:
    """Processes of a server, in order of their age, without those that have ended."""
    children = psutil.Process(worker.process.pid).children(recursive=True)
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child.pid for child in sorted(alive, key=lambda child: child.create_time())]


@pytest.mark.parametrize(
    "program",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "import os, signal, threading, time\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nthreading.Thread(target=time.sleep, args=(60,)).start()",
        "import os, time\nos.setsid() if os.getpid() != os.getsid(0) else None\nos.closerange(0, 64)\ntime.sleep(60)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    ],
    ids=["a thread", "ignoring signals", "another session", "stopped"],
)
def test_no_process_outlives_its_outcome(worker, program):
    run(worker, "1")
    servers = 1 if worker.kind == "namespaces" else 0

    prepared = _children(worker)[servers:]
    run(worker, program, wall_seconds=0.4)
    assert not set(prepared) & set(_children(worker))
    assert len(_children(worker)) == servers + 1  # only what waits for the next program


@pytest.mark.parametrize(
    "leaving",
    [
        "open('left.txt', 'w').write('x')",
        "open('/tmp/.left', 'w')",
        "import os; os.mkdir('left')",
        "import os; os.symlink('nowhere', 'left')",
        "import os; os.mkfifo('left')",
        "f = open('left', 'w'); import os; os.remove('left'); f.write('x' * 100000); f.flush()",
        "import tempfile; f = tempfile.TemporaryFile(); f.write(bytes(100000)); f.flush()",
    ],
)
def test_nothing_is_left_in_a_folder_that_is_used_again(worker, leaving):
    if worker.kind != "namespaces":
        pytest.skip("elsewhere no file can be written at all")
    state = "import os\nfree = os.statvfs('.')\nassert os.getcwd() == '/tmp'\n"
    state += "print(os.listdir('.'), free.f_bfree, free.f_ffree, os.stat('.').st_nlink)"
    clean = {run(worker, state).output for _ in range(3)}
    assert len(clean) == 1

    for _ in range(3):
        # Apart by more than a tick of the kernel's clock from the folders that are made before and after it.
        changes = f"import os, time; time.sleep(0.02)\n{leaving}\nprint(os.stat('.').st_mtime_ns); time.sleep(0.02)"
        left = run(worker, changes)
        assert left.passed
        for _ in range(3):  # whatever folder is given out next
            assert {run(worker, state).output} == clean
        assert run(worker, "import os; print(os.stat('.').st_mtime_ns)").output != left.output


def test_a_solution_and_its_tests_have_folders_of_their_own(worker):
    if worker.kind != "namespaces":
        pytest.skip("elsewhere no file can be written at all")
    solution = "import os\ndef write(): open('mine', 'w').write('x'); return os.listdir('.')"

    outcome = run(worker, solution, "import os\nassert write() == ['mine'] and os.listdir('.') == []")
    assert outcome.passed, outcome


def test_each_program_has_its_own_limits(worker):
    """Also where a process was prepared with the limits of the program before."""
    takes = "x = bytearray(100 << 20)"
    for memory, reason in ((256, "passed"), (100, "memory"), (256, "passed"), (100, "memory")):
        assert run(worker, takes, memory=memory * MB).reason == reason
        assert run(worker, f"def f():\n  {takes}", "f()", memory=memory * MB).reason == reason
    if worker.kind == "namespaces":
        writes = "open('f', 'wb').write(bytes(3 << 20))"
        for scratch, reason in ((4, "passed"), (2, "error"), (4, "passed")):
            assert run(worker, writes, scratch=scratch * MB).reason == reason


def test_a_text_longer_than_a_pipe_arrives_whole(worker):
    text = "ü" * (1 << 20)

    assert run(worker, f"x = {text!r}\nassert len(x) == {len(text)} and x[0] == x[-1]").passed
    assert run(worker, f"x = {text!r}\ndef f(y): return y == x", f"assert f({text!r})").passed
    assert run(worker, "x = '\ud800'").reason == "syntax"  # half a character


def test_a_server_that_is_killed_leaves_no_process_behind(worker):
    """The programs end with their server, even one that sleeps and one that was only prepared."""
    made = Worker(worker.kind)
    run(made, "1")
    processes = [made.process.pid, *_children(made)]
    os.kill(processes[1 if worker.kind == "namespaces" else 0], signal.SIGKILL)

    deadline = time.monotonic() + 20
    while any(_is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
        made.process.poll()
    assert not any(_is_alive(process) for process in processes)
    with pytest.raises((EOFError, ConnectionError)):
        run(made, "1")
    made.close()


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_is_imported_the_same_by_either_kind_of_server(worker):
    program = "import doctest, unittest, random\nprint(random.random())"
    heavy = Worker(worker.kind, heavy=True)
    try:
        outcomes = [run(made, program) for made in (worker, heavy, worker, heavy)]
    finally:
        heavy.close()

    assert all(outcome.passed for outcome in outcomes), outcomes
    assert len({outcome.output for outcome in outcomes}) == 4  # each has random numbers of its own


def test_heavy_modules_are_noticed():
    assert preload.imports_heavy("import doctest")
    assert preload.imports_heavy("x = 1", "def f():\n    from dataclasses import dataclass")
    assert preload.imports_heavy("import math, unittest as u")
    assert not preload.imports_heavy("import math\nfrom typing import List\ndoctest = 1", None)


def test_both_kinds_of_server_serve_one_call():
    try:
        pool.check_isolation()
    except UserError as error:
        pytest.skip(str(error))
    programs = ["import doctest", "import math", "import doctest; 1 / 0", "1 / 0"]

    assert [outcome.passed for outcome in run_all(programs, workers=1)] == [True, True, False, False]


def test_a_program_has_a_second_try_if_its_idle_server_was_killed():
    try:
        pool.check_isolation()
    except UserError as error:
        pytest.skip(str(error))
    run_all(["1"] * 4, workers=4)
    idle = [made for workers in pool._idle.values() for made in workers]
    for made in idle:
        made.process.kill()
        made.process.wait()

    assert [run_python("1").reason for _ in range(3)] == ["passed"] * 3


@pytest.mark.parametrize(("tests", "killed"), [(None, 0), ("f()", 0), ("f()", 1)])
def test_a_program_did_not_run_if_its_process_was_killed_while_it_waited(worker, tests, killed):
    servers = 1 if worker.kind == "namespaces" else 0
    made = Worker(worker.kind)
    run(made, "def f(): pass", tests)
    waiting = _children(made)[servers + killed]
    os.kill(waiting, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _is_alive(waiting) and time.monotonic() < deadline:
        time.sleep(0.01)

    with pytest.raises(EOFError):
        run(made, "def f(): pass", tests)
    made.close()


def test_an_outcome_is_known_although_the_next_process_could_not_be_prepared(tmp_path, monkeypatch):
    """Each process makes the same folder while it is isolated, so the second one fails."""
    folder = tmp_path / "made"
    steps = "import os; from training.sandbox import jail; own = jail.program_steps; "
    steps += f"jail.program_steps = lambda *given: own(*given) + [(os.mkdir, ({str(folder)!r},))]; del sys.path[0]"
    monkeypatch.setattr(callers, "SERVER", callers.SERVER.replace("del sys.path[0]", steps))
    made = Worker("none")
    try:
        for _ in range(2):
            assert run(made, "1").passed
            folder.rmdir()
        assert run(made, "1").passed
        with pytest.raises(RuntimeError, match="made"):  # the folder is still there
            run(made, "1")
    finally:
        made.close()
