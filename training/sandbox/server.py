"""The fork server of the sandbox: an isolated process that forks a new isolated process for every program.

A program starts in the time of a fork, with Python and common modules already loaded, and its process is forked and
isolated in advance, while the program before it runs. It shares nothing with that program: its memory and its /tmp are
its own. The server never holds anything of a program: the caller (`worker`) writes the program into a pipe, which only
the isolated process reads, and itself reads what the program prints and reports.
"""

import array
import contextlib
import os
import select
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple

import _socket  # `socket` would add half a megabyte to what every fork copies

from training.sandbox import jail, kernel, preload, runners, seccomp
from training.sandbox.scratch import Scratch, Scratches
from training.sandbox.values import read_message

OWN_PROCESSES = 6  # of the same user in the same namespace: server, two programs, the next two, and one to spare
PROBLEM_BYTES = 1000

# Messages between caller and server, one a packet. The caller starts programs and may stop them; the server answers a
# start with descriptors or a problem, and says at the end how each process ended.
START = struct.Struct("=qqqq?")  # CPU seconds, memory, scratch, threads; whether solution and tests are apart
STOP = b"stop"
READY = b"ready"
ENDED = struct.Struct("=id")  # wait status and CPU seconds of one process


class Prepared(NamedTuple):
    """Isolated processes that wait for their programs: one, or the solution's and the tests'.

    Attributes:
        start: the message that they were prepared for.
        processes: the one that reports is the last.
        ends: the caller's descriptors: output, report, and where each process reads its program.
        problem: a pipe that receives why isolation failed; it ends empty if it succeeded.
        scratches: their folders /tmp.
    """

    start: bytes
    processes: list[int]
    ends: list[int]
    problem: int
    scratches: list[Scratch]


def main(descriptor: int, kind: str, heavy: bool) -> None:
    """Serve programs until the other side closes.

    Args:
        descriptor: a SOCK_SEQPACKET socket. The first packet sent is `READY`, or why this process is not isolated.
        kind: of isolation: "namespaces", "landlock" or "none".
        heavy: whether to load modules of `preload.HEAVY` too.
    """
    channel = _socket.socket(fileno=descriptor)
    preload.load(heavy)
    landlock = scratches = None
    try:
        readable = kernel.readable_paths(preload.shared_libraries() if kind != "none" else [])
        if kind == "namespaces":
            kernel.enter_namespaces()
            child = os.fork()
            if child:  # a new PID namespace begins with the child
                channel.close()
                os.waitpid(child, 0)
                return
            kernel.end_with_parent()
            names = os.open("/proc/self/ns", os.O_RDONLY | os.O_DIRECTORY)
            kernel.replace_root(readable)
            scratches = Scratches(names)
        elif kind == "landlock":
            landlock = kernel.open_landlock(readable)
        jail.isolate_server(kind)
    except OSError as error:
        channel.send((error.strerror or str(error)).encode())
        return
    channel.send(READY)
    filter = seccomp.Filter(seccomp.assemble_program(os.uname().machine)) if kind != "none" else None
    with contextlib.suppress(ConnectionError):  # the other side ended
        Server(channel, jail.Isolation(kind, landlock, filter), scratches).serve()


class Server:
    """Prepares processes, hands them to the caller one set after the other, and ends them.

    Args:
        scratches: where programs may write files, if anywhere.
    """

    def __init__(self, channel: _socket.socket, isolation: jail.Isolation, scratches: Scratches | None):
        self.channel, self.isolation, self.scratches = channel, isolation, scratches

    def serve(self) -> None:
        """Serve until the other side closes, or isolation fails. Afterwards no process is left."""
        following = None
        while start := self.channel.recv(START.size):
            if start == STOP:  # it came after the end of what it should have stopped
                continue
            if following is not None and following.start != start:
                self._end(following)
                following = None
            running = following or self._prepare(start)
            if problem := os.read(running.problem, PROBLEM_BYTES):
                self.channel.send(problem)
                break
            self._hand_over(running)
            following = self._prepare(start)  # the next program will have the same limits
            poll = select.poll()
            poll.register(self.channel, select.POLLIN)
            reporter = os.pidfd_open(running.processes[-1])
            poll.register(reporter, select.POLLIN)
            poll.poll()  # until the reporting process ends, or the caller has something to say, or has ended itself
            os.close(reporter)
            self.channel.send(self._end(running))
        self._end(following or running)

    def _hand_over(self, prepared: Prepared) -> None:
        ends = array.array("i", prepared.ends)
        self.channel.sendmsg([READY], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ends)])
        for end in (*prepared.ends, prepared.problem):
            os.close(end)

    def _end(self, prepared: Prepared) -> bytes:
        """Kill what still runs, and say how each process ended."""
        ended = b""
        for process in prepared.processes:
            os.kill(process, signal.SIGKILL)
        for process in prepared.processes:
            _, status, usage = os.wait4(process, 0)
            ended += ENDED.pack(status, usage.ru_utime + usage.ru_stime)
        for scratch in prepared.scratches:
            self.scratches.leave(scratch)
        return ended

    def _prepare(self, start: bytes) -> Prepared:
        """Fork and isolate processes for the next program, without waiting for them."""
        cpu_seconds, memory, file_size, threads, apart = START.unpack(start)
        counted = self.isolation.kind == "namespaces" and kernel.counts_by_namespace()
        limits = kernel.ProcessLimits(cpu_seconds, memory, file_size, threads + OWN_PROCESSES if counted else None)
        output, output_end = os.pipe()
        report, report_end = os.pipe()
        problem, problem_end = os.pipe()
        prepared = Prepared(start, [], [output, report], problem, [])
        if apart:
            calls, calls_end = os.pipe()
            answers, answers_end = os.pipe()
            self._fork(prepared, limits, [answers_end, calls, output_end, problem_end], runners.run_solution)
            tests_ends = [report_end, calls_end, answers, output_end, problem_end]
            self._fork(prepared, limits, tests_ends, runners.run_tests)
            own = (output_end, report_end, problem_end, calls, calls_end, answers, answers_end)
        else:
            self._fork(prepared, limits, [report_end, output_end, problem_end], runners.run_program)
            own = (output_end, report_end, problem_end)
        for end in own:
            os.close(end)
        return prepared

    def _fork(
        self, prepared: Prepared, limits: kernel.ProcessLimits, ends: list[int], runner: Callable[..., None]
    ) -> None:
        """Start a process that isolates itself, reads its program and runs it.

        Args:
            ends: its channels, its output, and where it reports why isolation failed.
        """
        if self.scratches is not None:
            prepared.scratches.append(self.scratches.enter(limits.file_size))
        program, program_end = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                _run_isolated(self.isolation, limits, program, ends, runner)
            finally:
                os._exit(1)
        os.close(program)
        prepared.processes.append(process)
        prepared.ends.append(program_end)


def _run_isolated(
    isolation: jail.Isolation, limits: kernel.ProcessLimits, program: int, ends: list[int], runner: Callable[..., None]
) -> None:
    """Isolate this process, read its program and run it."""
    *channels, output, problem = ends
    rules = [] if isolation.landlock is None else [isolation.landlock]
    jail.drop_inherited_descriptors(output, [*channels, program, problem, *rules])
    program = jail.FIRST_CHANNEL + len(channels)
    problem = program + 1
    try:
        jail.isolate_program(isolation._replace(landlock=problem + 1 if rules else None), limits)
    except OSError as error:
        os.write(problem, str(error).encode())
        return
    os.close(problem)
    request = read_message(program)
    os.close(program)
    runner(*request)
