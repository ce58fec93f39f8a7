"""Attacks on the sandbox. An attack is a program that reaches its last line if and only if it succeeds.

Each runs as a plain process, where it must succeed, because an attack that does nothing proves nothing. It also runs in
each kind of isolation that this system offers, where it must fail and leave no trace.
"""

import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL

import pytest
from isolated import run
from terminal import ROOT

from training.common.errors import UserError
from training.sandbox import SandboxLimits, kernel, pool, run_all, seccomp

SECRET = "the-password-is-tulip"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Things worth attacking: a secret, a checkpoint, a server, a process; and a folder to work in."""
    monkeypatch.setenv("SCRATCH_TEST_TOKEN", SECRET)
    secret = tmp_path / "home" / ".secret"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_text("weights")
    (checkpoint / "model.safetensors").chmod(0o644)
    (tmp_path / "cwd").mkdir()
    inherited = os.open(secret, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    victim = subprocess.Popen(["sleep", "600"])
    servers = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    names = [str(tmp_path / "s"), f"\0scratch-test-{os.getpid()}"]
    for server, name in zip(servers[1:], names):
        server.bind(name)
        server.listen()
    yield {
        "secret": str(secret),
        "checkpoint": str(checkpoint),
        "marker": str(tmp_path / "marker"),
        "cwd": str(tmp_path / "cwd"),
        "inherited": inherited,
        "parent": os.getpid(),
        "victim": victim.pid,
        "port": servers[0].getsockname()[1],
        "unix": names[0],
        "abstract": names[1],
        "process": victim,
    }
    victim.kill()
    victim.wait()
    os.close(inherited)
    for server in servers:
        server.close()


def untouched(world: dict) -> bool:
    time.sleep(0.02)  # a signal needs a moment
    checkpoint = Path(world["checkpoint"])
    weights = checkpoint / "model.safetensors"
    return (
        weights.exists()
        and [path.name for path in checkpoint.iterdir()] == ["model.safetensors"]
        and weights.read_text() == "weights"
        and weights.stat().st_mode & 0o777 == 0o644
        and not Path(world["marker"]).exists()
        and world["process"].poll() is None
        and Path(f"/proc/{world['victim']}/stat").read_text().rpartition(")")[2].split()[0] in "SR"
    )


READING = {
    "a file in the home folder": "assert open({secret!r}).read()",
    "a file, by way of the root": "import os; assert open('/' + '../' * 40 + {secret!r}[1:]).read()",
    "a file, through a symbolic link": "import os; os.symlink({secret!r}, 'link'); assert open('link').read()",
    "a file, through a hard link": "import os; os.link({secret!r}, 'hard'); assert open('hard').read()",
    "the names in a folder": "import os; assert os.listdir(os.path.dirname({secret!r}))",
    "the users of the machine": "assert open('/etc/passwd').read()",
    "an environment variable": "import os; assert os.environ['SCRATCH_TEST_TOKEN']",
    "the environment, in C": "import ctypes; f = ctypes.CDLL(None).getenv; f.restype = ctypes.c_char_p\n"
    "assert f(b'SCRATCH_TEST_TOKEN')",
    "the environment of the parent": "assert open('/proc/{parent}/environ').read()",
    "the files of the parent": "import os; assert os.listdir('/proc/{parent}/fd')",
    "an open file of the parent": "import os; assert os.pread({inherited}, 100, 0) == b'" + SECRET + "'",
    "any open file": "import os\nfor fd in range(3, 256):\n  try:\n    if os.pread(fd, 100, 0) == b'"
    + SECRET
    + "': break\n  except OSError: pass\nelse: 1 / 0",
}
CONNECTING = {
    "a server on this machine": "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2).send(b'x')",
    "a socket that is a file": "import socket; s = socket.socket(socket.AF_UNIX); s.connect({unix!r}); s.send(b'x')",
    "a socket with a name": "import socket; s = socket.socket(socket.AF_UNIX); s.connect({abstract!r}); s.send(b'x')",
    "a datagram": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "listening": "import socket; socket.create_server(('127.0.0.1', 0))",
    "the kernel's own addresses": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
}
C = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); libc.syscall.restype = ctypes.c_long\n"
HARMING = {
    "writing to the checkpoint": "open({checkpoint!r} + '/model.safetensors', 'w').write('x')",
    "a new file in the checkpoint": "open({checkpoint!r} + '/new', 'w')",
    "deleting a file": "import os; os.remove({checkpoint!r} + '/model.safetensors')",
    "deleting a folder": "import shutil; shutil.rmtree({checkpoint!r})",
    "renaming": "import os; os.rename({checkpoint!r}, {checkpoint!r} + '2')",
    "truncating": "import os; os.truncate({checkpoint!r} + '/model.safetensors', 0)",
    "closing a file to its owner": "import os; os.chmod({checkpoint!r} + '/model.safetensors', 0)",
    "writing through a symbolic link": "import os; os.symlink({checkpoint!r} + '/model.safetensors', 'link')\n"
    "open('link', 'w').write('x')",
    "a folder that is a symbolic link": "import os; os.symlink({checkpoint!r}, 'd'); open('d/new', 'w')",
    "killing a process": "import os, time; os.kill({victim}, 9)",
    "stopping a process": "import os, signal; os.kill({victim}, signal.SIGSTOP)",
    "killing a group": "import os; os.kill({victim}, 0); os.kill({victim}, 9)",
    "a signal sent by a pipe": "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, {victim})\n"
    "fcntl.fcntl(r, 10, 9)\nfcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\nos.write(w, b'x')",
    "a signal by a descriptor of a process": "import os, signal; signal.pidfd_send_signal(os.pidfd_open({victim}), 9)",
    "a daemon": "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(0.3)\n"
    "    open({marker!r}, 'w').write('alive')\n  os._exit(0)\nos.wait()",
    "another program": "import subprocess; subprocess.run(['/bin/touch', {marker!r}], check=True)",
    "another program in this one's place": "import os; os.execv('/bin/touch', ['touch', {marker!r}])",
    "a shell": "import os; assert os.system('touch ' + {marker!r}) == 0",
}
TRACING = {
    "tracing": C + "assert libc.ptrace(16, {victim}, 0, 0) == 0\nos.waitpid({victim}, 0)",
    "reading another's memory": "assert open('/proc/{victim}/mem', 'rb')",
}


@pytest.mark.parametrize("name", READING | CONNECTING)
def test_what_is_outside_cannot_be_read_or_reached(worker, world, name):
    outcome = run(worker, (READING | CONNECTING)[name].format(**world))

    assert not outcome.passed
    assert outcome.reason in ("error", "assertion"), outcome


@pytest.mark.parametrize("name", HARMING)
def test_what_is_outside_cannot_be_harmed(worker, world, name):
    outcome = run(worker, HARMING[name].format(**world))

    assert not outcome.passed
    time.sleep(0.5 if name == "a daemon" else 0)
    assert untouched(world)


@pytest.mark.parametrize("name", TRACING)
def test_no_other_process_can_be_traced(worker, world, name):
    assert run(worker, TRACING[name].format(**world)).reason in ("assertion", "error")


MB = 1 << 20
# Program, the limits it runs under, and the reasons it may be stopped for.
EXHAUSTING = {
    "processes": (
        "import os, time\nfor n in range(40):\n  if os.fork() == 0:\n    time.sleep(2); os._exit(0)",
        {},
        ("error",),
    ),
    "processes, by the system call": (
        C + "clone = 56 if os.uname().machine == 'x86_64' else 220\n"
        "children = [libc.syscall(clone, 17, 0, 0, 0, 0) for _ in range(3)]\n"
        "if 0 in children: os._exit(0)\nassert min(children) > 0",
        {},
        ("assertion",),
    ),
    "memory, in one piece": ("x = bytearray(300 << 20)", {"memory": 256 * MB}, ("memory",)),
    "memory, in small pieces": ("x = [bytearray(1000) for _ in range(150_000)]", {"memory": 128 * MB}, ("memory",)),
    "memory, by a mapping": ("import mmap; mmap.mmap(-1, 300 << 20)", {"memory": 256 * MB}, ("error", "memory")),
    "memory, as a file without a name": (
        "import os\nfiles = [os.memfd_create(str(n)) for n in range(30)]\nfor f in files: os.write(f, bytes(10 << 20))",
        {"memory": 256 * MB},
        ("error",),
    ),
    "memory, shared": (C + "assert libc.shmget(0, 1 << 24, 0o1600) >= 0", {}, ("assertion",)),
    "disk, by one file": ("open('f', 'wb').write(bytes(20 << 20))", {"scratch": 16 * MB}, ("error",)),
    "disk, by many files": (
        "for n in range(20): open(str(n), 'wb').write(bytes(1 << 20))",
        {"scratch": 16 * MB},
        ("error",),
    ),
    "disk, by empty files": ("for n in range(2000): open(str(n), 'w').close()", {}, ("error",)),
    "output": ("print('x' * 1000 * 1000)", {"output": 1 << 16}, ("output",)),
    "output, on the other channel": ("import os\nfor _ in range(200): os.write(2, b'x' * 1000)", {}, ("output",)),
}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_what_the_machine_has_is_not_used_up(worker, name):
    program, limits, reasons = EXHAUSTING[name]
    outcome = run(worker, program, **limits)

    assert not outcome.passed
    assert outcome.reason in reasons, outcome
    assert len(outcome.output) <= SandboxLimits().output


THREADS = (
    "import threading, time\nthreading.stack_size(1 << 16)\n"
    "for _ in range({n}): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()"
)
ALL = (
    READING
    | CONNECTING
    | HARMING
    | TRACING
    | {name: program for name, (program, *_) in EXHAUSTING.items()}
    | {"threads": THREADS.replace("{n}", "100")}
)


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks are on Linux")
@pytest.mark.parametrize("name", ALL)
def test_without_a_sandbox_the_attack_succeeds(world, name):
    program = ALL[name].format(**world) if name in READING | CONNECTING | HARMING | TRACING else ALL[name]
    done = subprocess.run([sys.executable, "-S", "-c", program], close_fds=False, cwd=world["cwd"], stdout=DEVNULL)

    if name in TRACING and done.returncode:
        pytest.skip("this system lets nobody trace")
    assert done.returncode == 0
    time.sleep(0.5 if name == "a daemon" else 0)
    assert untouched(world) == (name not in HARMING)


def test_threads_are_few(worker):
    if worker.kind != "namespaces" or not kernel.counts_by_namespace():
        pytest.skip("this system does not count threads by namespace")
    assert run(worker, THREADS.format(n=10), threads=16).passed
    assert run(worker, THREADS.format(n=100), threads=16).reason == "error"


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "10 ** 10 ** 9",
        "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
        "import os, time\nfor fd in range(64):\n  try: os.close(fd)\n  except OSError: pass\ntime.sleep(60)",
        "import signal, time\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\n"
        "while True: time.sleep(1)",
        "def f():\n  try: f()\n  finally: f()\nf()",
        "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\nwhile True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    ],
    ids="busy,asleep,in C,in a regular expression,deaf,ignoring signals,recursion,threads,stopped".split(","),
)
def test_time_is_up(worker, program):
    started = time.monotonic()

    assert run(worker, program, cpu_seconds=1, wall_seconds=0.4).reason == "timeout"
    assert time.monotonic() - started < 20  # that it ends, not how fast


def test_processor_time_is_limited_by_itself(worker):
    outcome = run(worker, "while True: pass", cpu_seconds=1, wall_seconds=60.0)

    assert outcome.reason == "timeout"
    assert "processor" in outcome.detail


def test_a_program_finds_nothing_of_the_one_before(worker):
    leave = "import builtins, math; builtins.left = 1; math.pi = 3"
    look = "import math; assert math.pi > 3.1; left"
    assert run(worker, leave).passed
    assert run(worker, look).detail.startswith("NameError")

    if worker.kind == "namespaces":  # elsewhere no file can be written at all
        assert run(worker, "open('left.txt', 'w').write('x')").passed
        assert run(worker, "import os; assert os.listdir('.') == []").passed
    assert run(worker, "import os; assert not os.environ").passed


def test_a_program_has_no_rights_and_cannot_get_any(worker):
    program = (
        C
        + """
capget = 125 if os.uname().machine == "x86_64" else 90
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.syscall(capget, header, data) == 0 and not any(data)
assert libc.prctl(39, 0, 0, 0, 0) == 1, "no_new_privs"
assert not any(libc.prctl(23, capability, 0, 0, 0) == 1 for capability in range(38)) or os.getuid() != 0, "bounding set"
assert libc.unshare(0x10000000) == -1 and libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == -1
assert not [fd for fd in range(4, 256) if libc.fcntl(fd, 1) != -1], "open files"
assert libc.chroot(b"/tmp") == -1 and libc.setns(0, 0) == -1
"""
    )
    if worker.kind == "namespaces":
        program += "assert os.getuid() == os.getgid() == 65534 and os.getppid() == 1\n"
        program += "assert sorted(os.listdir('/dev')) == ['null', 'urandom', 'zero'] and not os.path.exists('/proc')\n"
        program += "assert os.statvfs('/').f_flag & os.statvfs(os.path.dirname(os.__file__)).f_flag & 1, 'read-only'\n"
    outcome = run(worker, program)

    assert outcome.passed, outcome


def test_what_an_ordinary_program_needs_is_there(worker):
    program = """
import asyncio, collections, csv, dataclasses, datetime, decimal, hashlib, json, random, sqlite3, ssl, threading, zlib
from typing import List
@dataclasses.dataclass
class Point:
    x: int
def test(values: List[int]) -> int:
    return sum(values)
assert test([1, 2]) == 3 and Point(1) == Point(1) and __name__ == "__main__"
assert hashlib.sha256(b"").hexdigest().startswith("e3b0") and zlib.crc32(b"abc")
thread = threading.Thread(target=print, args=("in a thread",)); thread.start(); thread.join()
async def later():
    await asyncio.sleep(0.01)
    return 7
assert asyncio.run(later()) == 7
assert sqlite3.connect(":memory:").execute("select 1 + 1").fetchone() == (2,)
assert datetime.datetime.now().year > 2000
print("ümläut")
"""
    outcome = run(worker, program)

    assert outcome.passed, outcome
    assert outcome.output == "in a thread\nümläut\n"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2", "assertion"),
        ("1 / 0", "error"),
        ("def", "syntax"),
        ("x = '\0'\n\0", "syntax"),
        ("import sys; sys.exit()", "exit"),
        ("import os; os._exit(0)", "exit"),
        ("import ctypes; ctypes.string_at(0)", "crash"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "crash"),
        ("import numpy", "error"),
        ("input()", "error"),
    ],
)
def test_why_a_program_did_not_pass(worker, program, reason):
    outcome = run(worker, program)

    assert not outcome.passed
    assert outcome.reason == reason, outcome


# In the form of a solution's answers, and of a report without its number and with a wrong one.
JUNK = (
    "import json, os, struct\ndata = json.dumps(['', 'passed', '']).encode()\n"
    "for fd in range(64):\n  try:\n    os.write(fd, struct.pack('=I', len(data)) + data)\n"
    "    os.write(fd, b'\\npassed\\n'); os.write(fd, b'0' * 32 + b'\\npassed\\n')\n  except OSError: pass\n"
)
FAKES = {
    "leaving with 0": "import os; os._exit(0)",
    "leaving with 0, politely": "import sys; sys.exit(0)",
    "leaving at exit": "import atexit, os; atexit.register(os._exit, 0); assert False",
    "leaving by a hook": "import os, sys; sys.excepthook = lambda *_: os._exit(0); assert False",
    "leaving in a thread": "import os, threading, time; threading.Timer(0.01, os._exit, (0,)).start(); time.sleep(5)\n"
    "assert False",
    "saying so": "print('passed'); print('OK'); assert False",
    "saying so on every channel": JUNK + "assert False",
    "saying so on every channel, and leaving": JUNK + "os._exit(0)",
    "an assertion that is none": "import builtins; builtins.AssertionError = builtins.SystemExit; assert False",
    "filling every channel": "import os\nfor fd in range(1, 4):\n  while os.write(fd, bytes(1 << 16)): pass",
    "closing every channel": "import os; os.closerange(0, 64); assert False",
    "a silent exception": "raise SystemExit(0)",
    "a speaking exception": "import os\nclass E(BaseException):\n  def __str__(self): os._exit(0)\nraise E",
    "an alarm": "import signal, os; signal.signal(signal.SIGALRM, lambda *_: os._exit(0)); signal.setitimer(0, 0.01)\n"
    "while True: pass",
}


@pytest.mark.parametrize("name", FAKES)
def test_a_result_cannot_be_faked_from_within_a_program(worker, name):
    outcome = run(worker, FAKES[name], wall_seconds=3.0)

    assert not outcome.passed


# Solutions to "return twice the number" that do not, and what would fool a test in the same process.
CHEATS = {
    **{name: f"def double(x):\n    exec({program!r})" for name, program in FAKES.items()},
    "an object equal to everything": "class Yes:\n  def __eq__(self, other): return True\ndef double(x): return Yes()",
    "a number equal to all": "class Yes(int):\n  def __eq__(self, other): return True\ndef double(x): return Yes(1)",
    "the frames of the caller": "import sys\ndef double(x):\n  frame = sys._getframe()\n  while frame:\n"
    "    for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
    "      if isinstance(value, str) and len(value) == 32:\n        FORGED\n    frame = frame.f_back",
    "other builtins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.all = builtins.any = lambda x: True\n"
    "def abs(x): return 0\ndef all(x): return True\ndef double(x): return 1",
    "another module math": "import math\nmath.isclose = lambda *_, **__: True\ndef double(x): return 1",
    "other ways to be an error": "import builtins\nbuiltins.AssertionError = int\ndef double(x): raise SystemExit",
    "an answer that is not a value": "import os\ndef double(x):\n  os.write(3, b'\\xff' * 100); os._exit(0)",
    "the word for passing": "import json, os, struct\ndef double(x):\n"
    "  data = json.dumps({'failed': ['passed', '']}).encode()\n"
    "  os.write(3, struct.pack('=I', len(data)) + data); os._exit(0)",
    "a name it may not give": "import json, os, struct\n"
    "data = json.dumps({'names': {'double': ['module', 'os'], 'abs': ['function']}}).encode()\n"
    "os.write(3, struct.pack('=I', len(data)) + data)",
    "changing the question": "def double(x):\n  return x",
    "killing the test process": "import os\ndef double(x):\n  os.kill(os.getppid() or 1, 9)\n  os.kill(1, 9)",
}
DOUBLE_TESTS = """
import math
assert double(2) == 4
assert abs(double(3) - 6) < 1e-9 and math.isclose(double(4), 8)
assert all(double(x) == 2 * x for x in [1, 5])
"""


@pytest.mark.parametrize("name", CHEATS)
def test_a_solution_cannot_fake_what_tests_find(worker, name):
    outcome = run(worker, CHEATS[name], DOUBLE_TESTS, wall_seconds=3.0)

    assert not outcome.passed
    assert run(worker, "def double(x): return 2 * x", DOUBLE_TESTS).passed


def test_tests_keep_their_own_builtins_and_names(worker):
    solution = "def abs(x): return 0\ndef all(x): return True\ndef check(f): pass\ndef double(x): return 1"

    assert run(worker, solution, "assert abs(double(3) - 6) < 1e-9").reason == "assertion"
    assert run(worker, solution, "assert all(double(x) == 2 * x for x in [1, 5])").reason == "assertion"
    own = "def check(candidate):\n    assert candidate(2) == 4\ncheck(double)"
    assert run(worker, solution, own).reason == "assertion"


def test_a_solution_cannot_end_the_loop_of_the_tests(worker):
    tests = "for answer in map(double, [1, 2]):\n    assert answer in (2, 4)"

    assert run(worker, "def double(x): return 2 * x", tests).passed
    assert run(worker, "def double(x): raise StopIteration", tests).reason == "error"


def test_a_program_that_looks_for_the_nonce_finds_it_unless_tests_are_apart(worker):
    """What docs/sandbox.md says of programs in one process; the day this fails, it may say more."""
    forge = """
import os, sys
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()):
        if isinstance(value, str) and len(value) == 32 and set(value) <= set("0123456789abcdef"):
            os.write(3, value.encode() + b"\\npassed\\n")
            os._exit(0)
    frame = frame.f_back
"""
    assert run(worker, forge + "assert False").passed
    assert not run(worker, forge + "def double(x): return 1", DOUBLE_TESTS).passed


def test_plain_values_come_through_unchanged(worker):
    solution = """
import collections, math
LIMIT = 7
def same(value): return value
def kinds(value): return type(value).__name__
def extend(values): values.append(1)
def count(text, *, upper=False): return collections.Counter(text.upper() if upper else text)
def fail(kind): raise {"key": KeyError, "own": type("Own", (Exception,), {})}[kind]("why")
"""
    tests = """
values = [None, True, 0, -5, 10**30, 1.5, float("inf"), 2j, "ü\\ud800", b"\\x00", [1, [2]], (1, (2,)), {1, 2},
          frozenset([3]), {"a": 1, (1, 2): None}, range(3)]
for value in values:
    assert same(value) == value and kinds(value) == type(value).__name__ and type(same(value)) is type(value), value
assert same(-0.0).hex() == "-0x0.0p+0" and same(float("nan")) != same(float("nan"))
mine = [0]
extend(mine)
assert mine == [0, 1]
assert count("aab", upper=True) == {"A": 2, "B": 1}
assert LIMIT == 7 and math.pi > 3
try: fail("key")
except KeyError as error: assert error.args == ("why",)
try: fail("own")
except RuntimeError as error: assert str(error) == "Own: why"
"""
    outcome = run(worker, solution, tests)

    assert outcome.passed, outcome


def test_the_limits_hold_for_a_solution_under_tests(worker):
    tests = "assert f() == 1"

    assert run(worker, "def f():\n  while True: pass", tests, cpu_seconds=1, wall_seconds=60.0).reason == "timeout"
    assert run(worker, "def f(): return bytearray(10**9)", tests).reason == "memory"
    assert run(worker, "while True: pass", tests, wall_seconds=1.0).reason == "timeout"
    assert run(worker, "def f(:", tests).reason == "syntax"
    assert run(worker, "def g(): return 1", tests).reason == "error"
    assert run(worker, "def f(): return 2", tests).reason == "assertion"
    assert run(worker, "import ctypes\ndef f(): ctypes.string_at(0)", tests).reason == "crash"


def test_nothing_runs_on_when_the_caller_is_killed(worker, tmp_path):
    """A caller that is killed in the middle of a program leaves no process behind."""
    caller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from training.sandbox.pool import Worker, SandboxLimits, asdict\n"
            f"worker = Worker({worker.kind!r}); print(worker.process.pid, flush=True)\n"
            "limits = asdict(SandboxLimits(cpu_seconds=600, wall_seconds=600.0))\n"
            "worker.run({'program': 'while True: pass', 'tests': None, 'limits': limits})",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    group = int(caller.stdout.readline())
    time.sleep(0.5)
    caller.kill()
    caller.wait()
    caller.stdout.close()

    deadline = time.monotonic() + 20
    while _descendants(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _descendants(group)


def _descendants(process: int) -> list[int]:
    """Living processes of the session that `process` began, and what they started, by their parents."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found = {process} & set(parents)
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def test_many_programs_keep_their_order():
    try:
        pool.check_isolation()
    except UserError as error:
        pytest.skip(str(error))
    programs = [f"assert {n} % 3" for n in range(30)]

    assert [outcome.passed for outcome in run_all(programs, workers=2)] == [n % 3 > 0 for n in range(30)]
    assert run_all(["def f(): return 1"] * 2, workers=2, tests=["assert f() == 1", "assert f() == 2"])[0].passed
    with pytest.raises(ValueError, match="1 tests for 2 programs"):
        run_all(["", ""], workers=1, tests=[""])


REFUSING = """
import ctypes, os, struct
from training.sandbox import seccomp
from training.common.errors import UserError
refused = [272, 444] if os.uname().machine == "x86_64" else [97, 444]  # unshare, landlock_create_ruleset
code = [(seccomp.LOAD, 0, 0, 0)]
for number in refused:
    code += [(seccomp.JUMP_EQUAL, 0, 1, number), (seccomp.RETURN, 0, 0, seccomp.DENY | 1)]
code.append((seccomp.RETURN, 0, 0, seccomp.ALLOW))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
seccomp.Filter(b"".join(struct.pack("=HBBI", *step) for step in code)).install(libc)
from training.sandbox import run_python
try:
    run_python("open({marker!r}, 'w')")
except UserError as error:
    print(error)
print(run_python("print('unisolated')", allow_unisolated=True).output)
print(run_python("x = bytearray(10 ** 9)", allow_unisolated=True).reason)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_system_that_isolates_nothing_is_refused_unless_told_otherwise(tmp_path):
    """Such as a container by Docker's default profile, played here by a filter of the same kind."""
    marker = tmp_path / "marker"
    program = REFUSING.replace("{marker!r}", repr(str(marker)))

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    refusal, *rest = done.stdout.splitlines()
    assert refusal.startswith("this system offers no isolation for running a model's code (namespaces: ")
    assert "landlock: " in refusal
    assert rest[0] == "unisolated" and rest[-1] == "memory"
    assert not marker.exists()


def test_an_ordinary_user_is_isolated_too(tmp_path):
    python = "/usr/bin/python3"
    command = [
        python,
        "-B",
        "-c",
        "import sys; from training.sandbox import *; assert sys.version_info >= (3, 11)\n",
    ]
    place = {"user": 12345, "group": 12345, "extra_groups": [], "cwd": ROOT, "env": {"PYTHONPATH": str(ROOT)}}
    if os.geteuid() != 0 or subprocess.run(command, **place, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs root, to become an ordinary user, and a Python of the system's that can read this folder")
    command[-1] += (
        "from training.sandbox import pool\nfor kind in pool.ISOLATIONS:\n"
        "    try: worker = pool.Worker(kind)\n    except OSError as error: print('refused'); continue\n"
        "    r = {'tests': None, 'limits': pool.asdict(SandboxLimits())}\n"
        "    print(worker.run({'program': 'import colorsys', **r}).reason)\n"
        "    print(worker.run({'program': 'import os; os.listdir(\"/etc\")', **r}).reason)\n"
        "    print(worker.run({'program': 'import os; os.fork()', **r}).reason)\n    worker.close()\n"
    )
    done = subprocess.run(command, **place, capture_output=True, text=True, timeout=120)

    lines = done.stdout.split()
    assert done.returncode == 0 and set(lines) <= {"refused", "passed", "error"}, done.stderr
    if lines == ["refused", "refused"]:
        pytest.skip("this system isolates nothing")
    assert "".join(lines).replace("refused", "").replace("passederrorerror", "") == ""


def test_the_filter_is_of_the_right_form():
    """Every jump lands inside, for both architectures, and all 256 instructions a jump can pass suffice."""
    for machine in seccomp.ARCHITECTURES:
        for instructions in (seccomp.assemble_server(machine), seccomp.assemble_program(machine)):
            code = list(struct.iter_unpack("=HBBI", instructions))
            for place, (operation, true, false, _) in enumerate(code):
                if operation & 7 == 5:
                    assert place + 1 + max(true, false) < len(code)
            assert code[-1] == (seccomp.RETURN, 0, 0, seccomp.ALLOW)
