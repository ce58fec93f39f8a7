"""A seccomp filter: the system calls that a program in the sandbox may not make.

A program in the sandbox is one process that computes, reads the standard library and writes to its own /tmp. It starts
no program, addresses no other process, opens no socket, and changes no owner or mode. It cannot reach the parts of the
kernel that most escapes used. A denied call fails with EPERM, an OSError in Python.

There are two filters, because the kernel examines a filter for every call when it is installed. The first and long one
is installed once, in the fork server, and allows only what the server needs beyond what programs need; every process
that it forks inherits it. The second and short one denies these calls too, in each process that runs a program.
"""

import ctypes
import errno
import os
import struct

# By machine: the kernel's audit architecture, and the column of the numbers below.
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Numbers on x86-64 and on arm64; None where the call does not exist.
DENIED_CALLS = {
    # other programs
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "get_robust_list": (274, 100),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # privileges, mounts, namespaces
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "personality": (135, 92),
    # sockets with an address
    "socket": (41, 198),
    "bind": (49, 200),
    "connect": (42, 203),
    # memory that does not count towards the memory limit
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # files, where Landlock does not restrict them
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    # parts of the kernel that no such program needs
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_setup": (206, 0),
    "vmsplice": (278, 75),
    "name_to_handle_at": (303, 264),
    "modify_ldt": (154, None),
    "syslog": (103, 116),
}
SERVER_CALLS = {"unshare": (272, 97), "setns": (308, 268), "mount": (165, 40)}  # denied to programs only
CLONE, KILL, TGKILL, PRLIMIT = (56, 220), (62, 129), (234, 131), (302, 261)
SOCKETPAIR, FCNTL, IOCTL, PRCTL = (53, 199), (72, 25), (16, 29), (157, 167)

# From this number on calls have one number on all machines. They fail with ENOSYS, so that libraries fall back to older
# calls, and calls that a future kernel adds are not allowed by default.
FIRST_NEW_CALL = 424
NEW_CALLS_ALLOWED = (436, 439)  # close_range, faccessat2
NEW_SERVER_CALLS = (434, 446)  # pidfd_open, landlock_restrict_self

CLONE_THREAD = 0x10000
F_SETOWN, F_SETSIG, F_SETOWN_EX = 8, 10, 15  # would send any signal to any process
FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX = 0x8901, 0x8902, 0x5412, 0x541C
PR_SET_PDEATHSIG = 1
AF_UNIX, SOCK_STREAM = 1, 1

# Instructions of the filter (classic BPF), its answers, and the layout of what it reads (struct seccomp_data).
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
KILL_PROCESS, DENY, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
X32 = 0x40000000  # bit of the x32 system calls on x86-64

CALL_NUMBER, MACHINE, ARGUMENTS, ARGUMENT_SIZE = 0, 4, 16, 8
SOCKET_TYPE_MASK = 0xF  # without SOCK_CLOEXEC and SOCK_NONBLOCK

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

INSTRUCTION, PID = struct.Struct("=HBBI"), struct.Struct("=I")
OWN_PID = 0xFFFFFFFE  # no process has this number
DENIED, ALLOWED = (RETURN, 0, 0, DENY | errno.EPERM), (RETURN, 0, 0, ALLOW)


def is_supported() -> bool:
    """Whether the filters know this machine's system calls."""
    return os.uname().machine in ARCHITECTURES


class Program(ctypes.Structure):
    """A filter as the kernel reads it (struct sock_fprog)."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


class Filter:
    """A filter, assembled before the fork, so that the forked process only has to install it.

    Args:
        instructions: in the kernel's form; `OWN_PID` stands for the process that installs it.
    """

    def __init__(self, instructions: bytes):
        self.buffer = ctypes.create_string_buffer(instructions, len(instructions))
        places = range(0, len(instructions), INSTRUCTION.size)
        constants = {place + 4: INSTRUCTION.unpack_from(instructions, place)[3] for place in places}
        self.pids = [place for place, constant in constants.items() if constant == OWN_PID]
        program = Program(len(places), ctypes.addressof(self.buffer))
        self.arguments = (SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)

    def install(self, libc: ctypes.CDLL) -> None:
        """Apply the filter to this process, permanently.

        Raises:
            OSError: the kernel rejects it.
        """
        pid = os.getpid()
        for place in self.pids:
            PID.pack_into(self.buffer, place, pid)
        if libc.prctl(PR_SET_SECCOMP, *self.arguments):
            raise OSError(ctypes.get_errno(), "the kernel rejects the seccomp filter")


class _Assembler:
    """Instructions of classic BPF: operation, jump if true, jump if false, constant."""

    def __init__(self, machine: str):
        self.architecture, self.column = ARCHITECTURES[machine]
        self.code: list[tuple[int, int, int, int]] = [(LOAD, 0, 0, MACHINE)]
        self.unless(JUMP_EQUAL, self.architecture, KILL_PROCESS)
        self.code.append((LOAD, 0, 0, CALL_NUMBER))
        if machine == "x86_64":
            self.when(JUMP_AT_LEAST, X32, KILL_PROCESS)

    def unless(self, operation: int, constant: int, value: int) -> None:
        """Answer `value` if the comparison with the loaded number is false."""
        self.code += [(operation, 1, 0, constant), (RETURN, 0, 0, value)]

    def when(self, operation: int, constant: int, value: int) -> None:
        """Answer `value` if the comparison with the loaded number is true."""
        self.code += [(operation, 0, 1, constant), (RETURN, 0, 0, value)]

    def deny(self, calls: dict[str, tuple[int | None, int]]) -> None:
        """Deny calls, whatever their arguments."""
        for numbers in calls.values():
            if numbers[self.column] is not None:
                self.when(JUMP_EQUAL, numbers[self.column], DENY | errno.EPERM)

    def check(self, call: tuple[int, int], *body: tuple[int, int, int, int]) -> None:
        """Instructions for one call only; the last is an answer."""
        self.code += [(JUMP_EQUAL, 0, len(body), call[self.column]), *body]

    def finish(self) -> bytes:
        """The filter in the kernel's form; a call that nothing answered yet is allowed."""
        return b"".join(INSTRUCTION.pack(*instruction) for instruction in [*self.code, ALLOWED])


def _argument(index: int) -> tuple[int, int, int, int]:
    return (LOAD, 0, 0, ARGUMENTS + ARGUMENT_SIZE * index)  # the lower half, all that these calls read


def _unless_argument(index: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """The body of a check: denied if the argument is one of the values."""
    return [_argument(index), *(step for value in values for step in ((JUMP_EQUAL, 0, 1, value), DENIED)), ALLOWED]


def assemble_server(machine: str) -> bytes:
    """The filter of the fork server, a key of `ARCHITECTURES` given."""
    code = _Assembler(machine)
    for number in NEW_CALLS_ALLOWED + NEW_SERVER_CALLS:
        code.when(JUMP_EQUAL, number, ALLOW)
    code.when(JUMP_AT_LEAST, FIRST_NEW_CALL, DENY | errno.ENOSYS)
    code.deny(DENIED_CALLS)
    code.check(PRLIMIT, _argument(0), (JUMP_EQUAL, 1, 0, 0), DENIED, ALLOWED)
    code.check(
        SOCKETPAIR,  # asyncio needs one; a pair has no address
        _argument(0),
        (JUMP_EQUAL, 1, 0, AF_UNIX),
        DENIED,
        _argument(1),
        (AND, 0, 0, SOCKET_TYPE_MASK),
        (JUMP_EQUAL, 1, 0, SOCK_STREAM),
        DENIED,
        ALLOWED,
    )
    code.check(FCNTL, *_unless_argument(1, (F_SETOWN, F_SETSIG, F_SETOWN_EX)))
    code.check(IOCTL, *_unless_argument(1, (FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX)))
    return code.finish()


def assemble_program(machine: str) -> bytes:
    """The filter of a program, which denies the server's calls, new processes, and signals to others."""
    code = _Assembler(machine)
    for number in NEW_SERVER_CALLS:
        code.when(JUMP_EQUAL, number, DENY | errno.ENOSYS)
    code.deny(SERVER_CALLS)
    code.check(CLONE, _argument(0), (JUMP_ANY_BIT, 1, 0, CLONE_THREAD), DENIED, ALLOWED)
    for call in (KILL, TGKILL):
        code.check(call, _argument(0), (JUMP_EQUAL, 1, 0, OWN_PID), DENIED, ALLOWED)
    code.check(PRCTL, *_unless_argument(0, (PR_SET_PDEATHSIG,)))
    return code.finish()
