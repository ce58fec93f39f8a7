"""The /tmp of each program: a mount namespace with an empty file system in memory.

Making one takes about a tenth of a program's time, and few programs write files. So a server keeps those that no
program has changed, and gives them to later programs; it never empties one.
"""

import os
import stat
from typing import NamedTuple

from training.sandbox import kernel


class Scratch(NamedTuple):
    """One /tmp: descriptors of its mount namespace and of the folder, its size, and what it was like when made."""

    namespace: int
    folder: int
    size: int
    state: tuple[int, ...]

    def is_unchanged(self) -> bool:
        """Whether no program has written, created or deleted anything here."""
        return _state(self.folder) == self.state

    def close(self) -> None:
        """Give it up; it ends with the last process inside."""
        os.close(self.namespace)
        os.close(self.folder)


def _state(folder: int) -> tuple[int, ...]:
    folder_now, files = os.fstat(folder), os.fstatvfs(folder)
    times = (folder_now.st_mtime_ns, folder_now.st_ctime_ns)
    return (*times, folder_now.st_nlink, stat.S_IMODE(folder_now.st_mode), files.f_bfree, files.f_ffree)


class Scratches:
    """The unused /tmp of a server, which itself moves between their mount namespaces.

    Args:
        names: descriptor of this process's /proc/self/ns.
    """

    def __init__(self, names: int):
        self.names, self.unused = names, list[Scratch]()
        self.base = os.open("mnt", os.O_RDONLY, dir_fd=names)

    def enter(self, size: int) -> Scratch:
        """Enter a mount namespace with an empty /tmp of at most `size` bytes; /tmp is then the working directory.

        Raises:
            OSError: the kernel rejects the mount.
        """
        for unfit in [scratch for scratch in self.unused if scratch.size != size]:
            self.unused.remove(unfit)
            unfit.close()
        if self.unused:
            scratch = self.unused.pop()
            kernel.enter_mounts(scratch.namespace)
            os.chdir("/tmp")
            return scratch
        kernel.enter_mounts(self.base)
        kernel.mount_scratch(size)
        os.chdir("/tmp")
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        return Scratch(os.open("mnt", os.O_RDONLY, dir_fd=self.names), folder, size, _state(folder))

    def leave(self, scratch: Scratch) -> None:
        """Take back what an ended program used, if it is unchanged."""
        if scratch.is_unchanged():
            self.unused.append(scratch)
        else:
            scratch.close()
