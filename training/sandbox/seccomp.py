"""The system calls that a tested program may not make, as a seccomp filter of the kernel.

One list for all: a program is one process that computes, reads the standard library and writes to its own scratch
folder. It starts nothing, names no other process, opens no socket, changes no owner or mode, and reaches none of the
corners of the kernel from which most escapes came. What is refused fails with EPERM, as an OSError in Python.
"""

import ctypes
import errno
import os
import platform
import struct

# Audit architecture, and which of the two columns below.
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Numbers on x86-64 and on arm64; None where the call does not exist.
REFUSED = {
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
    # new rights, new views
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "personality": (135, 92),
    # the network and everything with an address
    "socket": (41, 198),
    "bind": (49, 200),
    "connect": (42, 203),
    # memory that the limit on memory does not count
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # what Landlock does not cover
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
    # corners of the kernel that no such program needs
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
CLONE, KILL, TGKILL, PRLIMIT = (56, 220), (62, 129), (234, 131), (302, 261)
SOCKETPAIR, FCNTL, IOCTL, PRCTL = (53, 199), (72, 25), (16, 29), (157, 167)

# From here on numbers are the same everywhere. Newer calls do not exist for the program, so that libraries take the
# older ones, and so that what a future kernel adds is not open by default.
NEWER = 424
NEWER_ALLOWED = (436, 439)  # close_range, faccessat2

CLONE_THREAD = 0x10000
F_SETOWN, F_SETSIG, F_SETOWN_EX = 8, 10, 15  # would send a signal of choice to a process of choice
FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX = 0x8901, 0x8902, 0x5412, 0x541C
PR_SET_PDEATHSIG = 1
AF_UNIX, SOCK_STREAM = 1, 1

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
KILL_PROCESS, REFUSE, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
X32 = 0x40000000  # x86-64 calls by another numbering

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


def is_supported() -> bool:
    return platform.machine() in ARCHITECTURES


def seal(libc: ctypes.CDLL) -> None:
    """Put the filter on this process, for good.

    Raises:
        OSError: the kernel does not take it.
    """
    install(libc, assemble(platform.machine(), os.getpid()))


def install(libc: ctypes.CDLL, instructions: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    program = Program(len(instructions) // 8, instructions)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def assemble(machine: str, own_pid: int) -> bytes:
    """The filter in the kernel's form: 8 bytes an instruction.

    Args:
        machine: a key of `ARCHITECTURES`.
        own_pid: the one process that may be sent a signal.
    """
    architecture, column = ARCHITECTURES[machine]
    code: list[tuple[int, int, int, int]] = []  # operation, jump if true, jump if false, constant

    def answer(value: int) -> None:
        code.append((RETURN, 0, 0, value))

    def unless(operation: int, constant: int, value: int) -> None:
        """Return `value` if the comparison with what is loaded does not hold."""
        code.append((operation, 1, 0, constant))
        answer(value)

    def when(operation: int, constant: int, value: int) -> None:
        code.append((operation, 0, 1, constant))
        answer(value)

    def check(call: tuple[int, int], *body: tuple[int, int, int, int]) -> None:
        """Instructions for one call only, which end by an answer."""
        code.append((JUMP_EQUAL, 0, len(body), call[column]))
        code.extend(body)

    def argument(index: int) -> tuple[int, int, int, int]:
        return (LOAD, 0, 0, 16 + 8 * index)  # the lower half: all that these calls look at

    refuse, allow = (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW)

    code.append((LOAD, 0, 0, 4))
    unless(JUMP_EQUAL, architecture, KILL_PROCESS)
    code.append((LOAD, 0, 0, 0))
    if machine == "x86_64":
        when(JUMP_AT_LEAST, X32, KILL_PROCESS)
    for number in NEWER_ALLOWED:
        when(JUMP_EQUAL, number, ALLOW)
    when(JUMP_AT_LEAST, NEWER, REFUSE | errno.ENOSYS)
    for numbers in REFUSED.values():
        if numbers[column] is not None:
            when(JUMP_EQUAL, numbers[column], REFUSE | errno.EPERM)
    check(CLONE, argument(0), (JUMP_ANY_BIT, 1, 0, CLONE_THREAD), refuse, allow)
    for call in (KILL, TGKILL):
        check(call, argument(0), (JUMP_EQUAL, 1, 0, own_pid), refuse, allow)
    check(PRLIMIT, argument(0), (JUMP_EQUAL, 1, 0, 0), refuse, allow)
    check(
        SOCKETPAIR,  # what asyncio wakes itself with; a pair has no address
        argument(0),
        (JUMP_EQUAL, 1, 0, AF_UNIX),
        refuse,
        argument(1),
        (AND, 0, 0, 0xF),
        (JUMP_EQUAL, 1, 0, SOCK_STREAM),
        refuse,
        allow,
    )
    for call, index, values in (
        (FCNTL, 1, (F_SETOWN, F_SETSIG, F_SETOWN_EX)),
        (IOCTL, 1, (FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX)),
        (PRCTL, 0, (PR_SET_PDEATHSIG,)),
    ):
        tests = [step for value in values for step in ((JUMP_EQUAL, 0, 1, value), refuse)]
        check(call, argument(index), *tests, allow)
    answer(ALLOW)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
