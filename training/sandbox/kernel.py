"""Linux calls with which an ordinary process isolates itself: namespaces, mounts, Landlock.

Python 3.11 has no functions for most of these calls, hence ctypes. Nothing outside the standard library is needed.
"""

import contextlib
import ctypes
import os
import re
import sys

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 1024, 2048, 4096, 16384, 1 << 18, 1 << 21
# Flags that a bind mount must keep, in the numbers of statvfs.
PRESERVED_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME
MNT_DETACH = 2

NOBODY = 65534
NAMESPACE_LIMITS_SINCE = (5, 14)  # Linux versions that count processes of a user in each user namespace

PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE = 444, 445
LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # number of file rights, by version of the interface
READ_FILE, READ_DIR, WRITE_FILE = 1 << 2, 1 << 3, 1 << 1

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
TIME_ZONES = "/usr/share/zoneinfo"


def call(result: int, what: str) -> int:
    """The result of a C function; a negative one is an OSError."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def unshare(flags: int, what: str) -> None:
    """Enter new namespaces."""
    call(libc.unshare(flags), f"unshare ({what})")


def enter_mounts(namespace: int) -> None:
    """Enter a mount namespace, given by a file descriptor; its root becomes the working directory."""
    call(libc.setns(namespace, CLONE_NEWNS), "setns")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else options.encode()
    call(libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")


def _pivot_root(new: str, old: str) -> None:
    call(libc.syscall(PIVOT_ROOT[os.uname().machine], new.encode(), old.encode()), "pivot_root")


def enter_namespaces() -> None:
    """Enter new namespaces of users, mounts, network, IPC, host names and (for children) processes.

    Root keeps its users in the new namespace, so that it can become nobody before a program runs. Any other user is
    mapped to nobody.

    Raises:
        OSError: the kernel, or a container's policy, does not allow it.
    """
    uid, gid, me = os.geteuid(), os.getegid(), os.getpid()
    entered, entered_end = os.pipe()
    helper = os.fork()
    if helper == 0:  # the maps must be written from outside the new namespace
        os.close(entered_end)
        failed = 1
        with contextlib.suppress(OSError):
            if os.read(entered, 1) == b"1":
                _write_maps(me, uid, gid)
                failed = 0
        os._exit(failed)
    os.close(entered)
    try:
        unshare(CLONE_NEWUSER, "user namespace")
        os.write(entered_end, b"1")
    finally:
        os.close(entered_end)
        status = os.waitpid(helper, 0)[1]
    if status:
        raise PermissionError(1, "the maps of the user namespace cannot be written")
    unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS, "namespaces")


def _write_maps(pid: int, uid: int, gid: int) -> None:
    if uid == 0:
        for kind in ("uid_map", "gid_map"):
            with open(f"/proc/self/{kind}") as ranges:
                identity = "".join(f"{first} {first} {count}\n" for first, _, count in map(str.split, ranges))
            _write(f"/proc/{pid}/{kind}", identity)
    else:
        _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", f"{NOBODY} {uid} 1\n")
        _write(f"/proc/{pid}/gid_map", f"{NOBODY} {gid} 1\n")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def readable_paths(libraries: list[str]) -> list[str]:
    """Paths that a program may read: the standard library as this interpreter finds it and the shared libraries that it
    needs, time zones, devices."""
    return [path for path in (*sys.path, *libraries, TIME_ZONES, *DEVICES) if path and os.path.exists(path)]


def replace_root(readable: list[str]) -> None:
    """Replace the file system by the readable paths, all read-only, and an empty /tmp.

    There is no /proc, no /sys, no home folder, and no executable.
    """
    sources = {path: os.path.realpath(path) for path in readable}
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
        # A user namespace may not drop flags of the original mount, so they must be given again.
        kept = os.statvfs(target).f_flag & PRESERVED_FLAGS
        kept |= 0 if path in DEVICES else MS_NODEV
        kept |= 0 if kept & MS_NOATIME else MS_RELATIME
        _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)
    os.mkdir("/new/tmp")
    os.chdir("/new")
    _pivot_root(".", ".")  # mounts the old root over the new one, where it can be unmounted
    call(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    _mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def mount_scratch(size: int) -> None:
    """Mount an empty /tmp in memory, of at most `size` bytes, in a new mount namespace that this process enters."""
    unshare(CLONE_NEWNS, "mount namespace")
    options = f"mode=1777,size={max(size, 1)},nr_inodes=1k"  # 0 would be no limit
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, options)


def open_landlock(readable: list[str]) -> int:
    """A file descriptor of Landlock rules: read the readable paths, write /dev/null, nothing else.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    call(version, "Landlock")
    rights = ctypes.c_uint64((1 << LANDLOCK_RIGHTS[min(version, max(LANDLOCK_RIGHTS))]) - 1)
    rules = call(libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(rights), ctypes.c_size_t(8), 0), "Landlock")

    class Rule(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]

    for path in readable:
        parent = os.open(path, os.O_PATH)
        allowed = READ_FILE | (READ_DIR if os.path.isdir(path) else 0) | (WRITE_FILE if path == "/dev/null" else 0)
        rule = Rule(allowed, parent)
        call(libc.syscall(LANDLOCK_ADD_RULE, rules, 1, ctypes.byref(rule), 0), f"Landlock, {path}")
        os.close(parent)
    return rules


def counts_by_namespace() -> bool:
    """Whether the kernel counts a user's processes separately in each user namespace."""
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= NAMESPACE_LIMITS_SINCE
