"""Windows or macOS as our own modules would find them, in every process whose PYTHONPATH begins with this folder.

`SIMULATED` in the environment names the system, as `sys.platform` does. Our modules then get standard modules without
what is missing there, and find no /proc and no /sys. Other packages keep the real ones. For all, Windows' rules on
files hold: what is open or mapped in this process is neither renamed nor deleted, nor is a folder around it.
"""

import builtins
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import types
import warnings

SYSTEM = os.environ.get("SIMULATED")
OURS = ("training", "modeling_scratch")
POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
LINUX_ONLY = {
    "os": "sched_getaffinity sched_setaffinity memfd_create posix_fadvise setresuid setresgid unshare setns O_PATH",
    "socket": "SOCK_CLOEXEC",
}
POSIX_ONLY = {
    "os": "fork forkpty getuid geteuid getgid getegid getgroups setsid getpgid getpgrp killpg nice sysconf uname "
    "statvfs fstatvfs pread pwrite posix_spawn getloadavg mkfifo mknod chown fchown fchmod chroot wait wait3 wait4 "
    "waitid WNOHANG O_NONBLOCK O_NOFOLLOW O_DIRECTORY O_CLOEXEC openpty register_at_fork sendfile pipe2 sync "
    "get_blocking set_blocking",
    "signal": "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGTSTP SIGSTOP SIGCONT SIGQUIT alarm setitimer "
    "pthread_kill pthread_sigmask sigwait pause",
    "socket": "AF_UNIX socketpair send_fds recv_fds",
    "time": "tzset clock_gettime",
}


class Module(types.ModuleType):
    """A standard module as another system has it."""

    def __init__(self, real: types.ModuleType, missing: set[str], changed: dict[str, object]):
        super().__init__(real.__name__)
        vars(self).update(_real=real, _missing=missing, **changed)

    def __getattr__(self, name: str) -> object:
        if name in self._missing:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}' on {SYSTEM}")
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._real, name, value)


class WindowsPopen(subprocess.Popen):
    """A program that Windows runs: no descriptors are passed on, and the only signal is its end."""

    def __init__(self, *arguments, pass_fds=(), preexec_fn=None, process_group=None, start_new_session=False, **more):
        if pass_fds or preexec_fn:
            raise ValueError("pass_fds and preexec_fn are not supported on Windows")
        super().__init__(*arguments, **more)

    def send_signal(self, sig: int) -> None:
        if sig != signal.SIGTERM:
            raise ValueError(f"Unsupported signal: {sig}")
        super().send_signal(sig)


def is_ours(name: str | None) -> bool:
    return (name or "").partition(".")[0] in OURS


def simulate_modules() -> None:
    lists = [LINUX_ONLY] + [POSIX_ONLY] * (SYSTEM == "win32")
    missing = {name: {word for part in lists for word in part.get(name, "").split()} for name in POSIX_ONLY}
    changed: dict[str, dict[str, object]] = {"sys": {"platform": SYSTEM}}
    if SYSTEM == "win32":
        changed |= {"os": {"name": "nt"}, "subprocess": {"Popen": WindowsPopen}}
    simulated = {
        name: Module(sys.modules.get(name) or __import__(name), missing.get(name, set()), changed.get(name, {}))
        for name in missing.keys() | changed.keys()
    }
    real_import = builtins.__import__

    def import_(name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0 and is_ours((globals or {}).get("__name__")):
            if SYSTEM == "win32" and name in POSIX_MODULES:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)
            if name == "msvcrt":
                return types.SimpleNamespace(LK_NBLCK=2, locking=lock_region, kbhit=lambda: False)
            if name in simulated:
                return simulated[name]
        return real_import(name, globals, locals, fromlist, level)

    builtins.__import__ = import_


def lock_region(descriptor: int, mode: int, size: int) -> None:
    """`msvcrt.locking`, by the locks of this system."""
    import errno
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, size, 0, os.SEEK_CUR)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


def opened_by_ours() -> bool:
    frame = sys._getframe(2)
    while frame and frame.f_globals.get("__name__") in ("pathlib", "genericpath", "io", "os"):
        frame = frame.f_back
    return frame is not None and is_ours(frame.f_globals.get("__name__"))


def hide_system_files() -> None:
    """No /proc and no /sys for our modules."""

    def hiding(real):
        def call(path, *arguments, **more):
            named = not isinstance(path, int) and os.fspath(path)
            if isinstance(named, str) and f"{named}/".startswith(("/proc/", "/sys/")) and opened_by_ours():
                raise FileNotFoundError(2, "No such file or directory", named)
            return real(path, *arguments, **more)

        return call

    io.open, os.stat, os.listdir = hiding(io.open), hiding(os.stat), hiding(os.listdir)


def end_lines_as_windows_does() -> None:
    """Text that our modules write gets two characters at the end of a line, unless they say otherwise."""
    opened = io.open

    def open_(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if newline is None and "b" not in mode and set(mode) & set("wax+") and opened_by_ours():
            newline = "\r\n"
        return opened(file, mode, buffering, encoding, errors, newline, closefd, opener)

    io.open = builtins.open = open_


def in_use(path: str, dir_fd: int | None) -> bool:
    """Whether this process holds a file, or one in a folder, open or mapped."""
    folder = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
    path = os.path.join(folder, os.fspath(path))
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    held = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            held.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    with real_open("/proc/self/maps", encoding="utf-8") as maps:
        held |= {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if line.count("/")}
    folders = {os.path.join(place, "") for place in held if os.path.isdir(place)}
    return any(name == path or name.startswith(path + "/") for name in held if os.path.join(name, "") not in folders)


def simulate_files() -> None:
    def guarded(real, both):
        def call(path, *others, dir_fd=None, src_dir_fd=None, dst_dir_fd=None, **more):
            for each, place in ((path, dir_fd or src_dir_fd), *(((others[0], dst_dir_fd),) if both else ())):
                if in_use(each, place):
                    raise PermissionError(13, "used by this process", os.fspath(each))
            places = {"dir_fd": dir_fd, "src_dir_fd": src_dir_fd, "dst_dir_fd": dst_dir_fd}
            return real(path, *others, **more, **{key: value for key, value in places.items() if value is not None})

        return call

    os.rename, os.replace = guarded(os.rename, True), guarded(os.replace, True)
    os.unlink, os.remove = guarded(os.unlink, False), guarded(os.remove, False)
    real_descriptor, real_fsync = os.open, os.fsync

    def descriptor(path, flags, *arguments, **more):
        if opened_by_ours() and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return real_descriptor(path, flags, *arguments, **more)

    def fsync(number):
        import fcntl

        if not isinstance(number, int):
            number = number.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        real_fsync(number)

    os.open, os.fsync = descriptor, fsync


real_open = io.open
if SYSTEM:
    simulate_modules()
    hide_system_files()
    multiprocessing.set_start_method("spawn", force=True)
    warnings.filterwarnings("ignore", category=EncodingWarning)
    warnings.filterwarnings("error", category=EncodingWarning, module=rf"({'|'.join(OURS)})(\.|$)")
    if SYSTEM == "win32":
        end_lines_as_windows_does()
        simulate_files()
