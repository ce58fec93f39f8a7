"""What the kernel offers an ordinary process to lock itself in: namespaces, a view of few files, Landlock, limits.

Python 3.11 has no names for most of these calls, hence ctypes; nothing outside the standard library is needed.
"""

import contextlib
import ctypes
import os
import re
import resource
import sys
from pathlib import Path
from typing import NamedTuple

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 1024, 2048, 4096, 16384, 1 << 18, 1 << 21
KEPT = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME  # as statvfs names them
MNT_DETACH = 2

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
LAST_CAPABILITY = 63
NOBODY = 65534

SYSCALLS = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # interface version to how many rights on files it knows
READ_FILE, READ_DIR, WRITE_FILE = 1 << 2, 1 << 3, 1 << 1

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
TIME_ZONES = "/usr/share/zoneinfo"


class ProcessLimits(NamedTuple):
    """Limits of one process, in seconds and bytes."""

    cpu_seconds: int
    memory: int
    file_size: int
    threads: int | None  # None where they cannot be counted


def _call(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def unshare(flags: int, what: str) -> None:
    _call(libc.unshare(flags), f"unshare ({what})")


def return_to(pid_namespace: int) -> None:
    """Put later children into this namespace again (a file descriptor of it)."""
    _call(libc.setns(pid_namespace, CLONE_NEWPID), "setns")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else options.encode()
    _call(libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")


def _pivot_root(new: str, old: str) -> None:
    _call(libc.syscall(SYSCALLS[os.uname().machine]["pivot_root"], new.encode(), old.encode()), "pivot_root")


def enter_namespaces() -> None:
    """Leave the machine's users, mounts, network, messages and (for children) processes.

    Root keeps its users in the new namespace, to become nobody before a program runs; another user is alone there.

    Raises:
        OSError: the kernel, or a container's policy, refuses.
    """
    uid, gid, me = os.geteuid(), os.getegid(), os.getpid()
    entered, told = os.pipe()
    helper = os.fork()
    if helper == 0:  # the maps must be written from outside of the new namespace
        os.close(told)
        failed = 1
        with contextlib.suppress(OSError):
            if os.read(entered, 1) == b"1":
                _write_maps(me, uid, gid)
                failed = 0
        os._exit(failed)
    os.close(entered)
    try:
        unshare(CLONE_NEWUSER, "user namespace")
        os.write(told, b"1")
    finally:
        os.close(told)
        status = os.waitpid(helper, 0)[1]
    if status:
        raise PermissionError(1, "the maps of the user namespace cannot be written")
    unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS, "namespaces")


def _write_maps(pid: int, uid: int, gid: int) -> None:
    if uid == 0:
        for kind in ("uid_map", "gid_map"):
            ranges = [line.split() for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
            identity = "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
            Path(f"/proc/{pid}/{kind}").write_text(identity)
    else:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
        Path(f"/proc/{pid}/uid_map").write_text(f"{NOBODY} {uid} 1\n")
        Path(f"/proc/{pid}/gid_map").write_text(f"{NOBODY} {gid} 1\n")


def readable_paths() -> list[str]:
    """All that a program may read: the standard library, where this interpreter looks for it, time zones, devices."""
    return [path for path in (*sys.path, TIME_ZONES, *DEVICES) if path and os.path.exists(path)]


def close_view() -> None:
    """Replace the tree of files by the standard library, time zones and three devices, all read-only.

    There is no /proc, no /sys, no home, and no program to start.
    """
    sources = {path: os.path.realpath(path) for path in readable_paths()}
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir("/tmp/old")
    os.mkdir("/tmp/new")
    _pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", MS_NOSUID, "mode=755,size=1m,nr_inodes=4k")
    for path, source in sources.items():
        target = "/new" + path
        if os.path.isdir("/old" + source):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        _mount("/old" + source, target, None, MS_BIND)
        # Flags that came with the mount are locked in a user namespace: they must be named again.
        kept = os.statvfs(target).f_flag & KEPT
        kept |= 0 if path in DEVICES else MS_NODEV
        kept |= 0 if kept & MS_NOATIME else MS_RELATIME
        _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)
    os.mkdir("/new/tmp")
    os.chdir("/new")
    _pivot_root(".", ".")  # the old root lies over the new one, to be taken off
    _call(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    _mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def mount_scratch(size: int) -> None:
    """An empty folder /tmp for one program, in memory, of at most `size` bytes; it goes when the program does."""
    unshare(CLONE_NEWNS, "mount namespace")
    options = f"mode=1777,size={max(size, 1)},nr_inodes=1k"  # 0 would be no limit
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir("/tmp")


def open_landlock() -> int:
    """Rules for Landlock, as a file descriptor: reading what `readable_paths` names, writing /dev/null.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    _call(version, "Landlock")
    rights = ctypes.c_uint64((1 << LANDLOCK_RIGHTS[min(version, max(LANDLOCK_RIGHTS))]) - 1)
    rules = _call(libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(rights), ctypes.c_size_t(8), 0), "Landlock")

    class Rule(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]

    for path in readable_paths():
        parent = os.open(path, os.O_PATH)
        allowed = READ_FILE | (READ_DIR if os.path.isdir(path) else 0) | (WRITE_FILE if path == "/dev/null" else 0)
        rule = Rule(allowed, parent)
        _call(libc.syscall(LANDLOCK_ADD_RULE, rules, 1, ctypes.byref(rule), 0), f"Landlock, {path}")
        os.close(parent)
    return rules


def restrict_files(rules: int) -> None:
    """From now on open only what the rules of `open_landlock` allow; needs `drop_rights` before."""
    _call(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0), "Landlock")


def counts_by_namespace() -> bool:
    """Whether processes of a user are counted in each user namespace by themselves: since Linux 5.14."""
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (5, 14)


def set_limits(process: ProcessLimits) -> None:
    """Limits of this process, soft and hard alike."""
    limits = {
        resource.RLIMIT_CPU: process.cpu_seconds,
        resource.RLIMIT_AS: process.memory,
        resource.RLIMIT_FSIZE: process.file_size,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if process.threads is not None:
        limits[resource.RLIMIT_NPROC] = process.threads
    for kind, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # already lower, or (macOS) not to be set
            resource.setrlimit(kind, (value, value))


def drop_rights(become_nobody: bool) -> None:
    """Give up every capability, and the ways to new ones, for good.

    Args:
        become_nobody: change to a user who owns nothing, too; only root can.
    """
    _call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails without CAP_SETPCAP: there is nothing to drop then
    if become_nobody:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _call(libc.syscall(SYSCALLS[os.uname().machine]["capset"], ctypes.byref(header), ctypes.byref(none)), "capset")
