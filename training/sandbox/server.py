"""The fork server of the sandbox: an isolated process that forks a new isolated process for every program.

A program starts in the time of a fork, with Python and common modules already loaded, and its process is forked and
isolated in advance, while the program before it runs. It shares nothing with that program: its memory and its /tmp are
its own. The server never holds anything of a program: the caller (`worker`) writes the program into a pipe, which only
the isolated process reads, and itself reads what the program prints and reports.
"""

import _socket  # `socket` would add half a megabyte to what every fork copies
import array
import contextlib
import os
import select
import signal
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from training.sandbox import jail, kernel, preload, restrictions, runners, seccomp
from training.sandbox.protocol import ENDED, PROBLEM, READY, START, STOP
from training.sandbox.scratch import Scratch, Scratches
from training.sandbox.values import read_request

OWN_PROCESSES = 6  # of the same user in the same namespace: server, two programs, the next two, and one to spare
PROBLEM_BYTES = 1000


class Prepared(NamedTuple):
    """Isolated processes that wait for their programs: one, or the solution's and the tests'.

    Attributes:
        processes: the one that reports is the last.
        ends: the caller's descriptors: output, report, and where each process reads its program.
        problem: a pipe that receives why isolation failed; it ends empty if it succeeded.
        scratches: their folders /tmp.
    """

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
    channel = _socket.socket(fileno=jail.reserve_descriptors(descriptor))
    preload.load(heavy)
    scratches = None
    try:
        readable = kernel.readable_paths(preload.shared_libraries() if kind != "none" else [])
        if kind == "namespaces":
            kernel.enter_namespaces()
            child = os.fork()
            if child:  # a new PID namespace begins with the child
                channel.close()
                os.waitpid(child, 0)
                return
            restrictions.take_steps([restrictions.end_with_parent()])
            names = os.open("/proc/self/ns", os.O_RDONLY | os.O_DIRECTORY)
            kernel.replace_root(readable)
            scratches = Scratches(names)
        elif kind == "landlock":
            os.dup2(kernel.open_landlock(readable), jail.RULES)
        jail.isolate_server(kind)
    except OSError as error:
        channel.send((error.strerror or str(error)).encode())
        return
    channel.send(READY)
    filter = seccomp.Filter(seccomp.assemble_program(os.uname().machine)) if kind != "none" else None
    with contextlib.suppress(ConnectionError):  # the other side ended
        Server(channel, jail.Isolation(kind, filter), scratches).serve()


class Server:
    """Prepares processes, hands them to the caller one set after the other, and ends them.

    Args:
        scratches: where programs may write files, if anywhere.
    """

    def __init__(self, channel: _socket.socket, isolation: jail.Isolation, scratches: Scratches | None):
        self.channel, self.isolation, self.scratches = channel, isolation, scratches
        self.poll = select.poll()
        self.poll.register(channel, select.POLLIN)
        self.start = b""  # the last message of this kind, and what is derived from it
        self.size, self.apart, self.steps = 0, False, list[restrictions.Step]()

    def serve(self) -> None:
        """Serve until the other side closes, or isolation fails twice. Afterwards no process is left."""
        following = None
        while start := self.channel.recv(START.size):
            if start == STOP:  # it came after the end of what it should have stopped
                continue
            if start != self.start:
                self._set_limits(start)
                if following is not None:
                    self._end(following)
                following = self._prepare()
                if problem := self._hand_over(following, READY):
                    self.channel.send(PROBLEM + problem)
                    break
            running, following = following, self._prepare()  # the next program will have the same limits
            reporter = os.pidfd_open(running.processes[-1])
            self.poll.register(reporter, select.POLLIN)
            self.poll.poll()  # until the reporting process ends, or the caller stops it or has ended
            self.poll.unregister(reporter)
            os.close(reporter)
            ended = self._end(running)
            if self._hand_over(following, ended):
                self.channel.send(ended)
                self.start = b""  # the next program has a second try
        if following is not None:
            self._end(following)

    def _hand_over(self, prepared: Prepared, message: bytes) -> bytes:
        """Send a message with the caller's descriptors of the next processes.

        Returns:
            Why these could not be isolated, in which case nothing was sent; else nothing.
        """
        problem = os.read(prepared.problem, PROBLEM_BYTES)
        if not problem:
            self.channel.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", prepared.ends))])
        for end in (*prepared.ends, prepared.problem):
            os.close(end)
        return problem

    def _set_limits(self, start: bytes) -> None:
        cpu_seconds, memory, self.size, threads, self.apart = START.unpack(start)
        counted = self.isolation.kind == "namespaces" and kernel.counts_by_namespace()
        threads = threads + OWN_PROCESSES if counted else None
        limits = restrictions.ProcessLimits(cpu_seconds, memory, self.size, threads)
        self.start, self.steps = start, jail.program_steps(self.isolation, limits)

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

    def _prepare(self) -> Prepared:
        """Fork and isolate processes for the next program, without waiting for them."""
        output, output_end = os.pipe()
        report, report_end = os.pipe()
        problem, problem_end = os.pipe()
        prepared = Prepared([], [output, report], problem, [])
        if self.apart:
            calls, calls_end = os.pipe()
            answers, answers_end = os.pipe()
            self._fork(prepared, runners.run_solution, output_end, problem_end, answers_end, calls)
            self._fork(prepared, runners.run_tests, output_end, problem_end, report_end, calls_end, answers)
            own = (output_end, report_end, problem_end, calls, calls_end, answers, answers_end)
        else:
            self._fork(prepared, runners.run_program, output_end, problem_end, report_end)
            own = (output_end, report_end, problem_end)
        for end in own:
            os.close(end)
        return prepared

    def _fork(
        self, prepared: Prepared, runner: Callable[..., NoReturn], output: int, problem: int, *channels: int
    ) -> None:
        """Start a process that isolates itself, reads its program and runs it.

        Args:
            problem: where it reports why isolation failed.
        """
        if self.scratches is not None:
            prepared.scratches.append(self.scratches.enter(self.size))
        program, program_end = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                _run_isolated(self.steps, self.isolation.filter, runner, output, problem, program, channels)
            finally:
                os._exit(1)
        os.close(program)
        prepared.processes.append(process)
        prepared.ends.append(program_end)


def _run_isolated(
    steps: list[restrictions.Step],
    filter: seccomp.Filter | None,
    runner: Callable[..., NoReturn],
    output: int,
    problem: int,
    program: int,
    channels: tuple[int, ...],
) -> None:
    """Isolate this process, read its program and run it."""
    jail.place_descriptors(output, problem, program, channels)
    try:
        restrictions.take_steps(steps)
        if filter is not None:
            filter.install(kernel.libc)
    except OSError as error:
        os.write(jail.PROBLEM, str(error).encode())
        return
    os.close(jail.PROBLEM)
    request = read_request(jail.PROGRAM)
    os.closerange(jail.FIRST_CHANNEL + len(channels), jail.FIRST_FREE)
    runner(*request)
