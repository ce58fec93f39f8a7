"""The C library keeps freed memory, so that the next tensors take no page faults."""

import ctypes
import sys

# Options of mallopt, by their numbers in glibc's malloc.h, and their values in bytes.
_OPTIONS = {
    -3: 1 << 30,  # M_MMAP_THRESHOLD: larger blocks go back to the system when they are freed
    -1: -1,  # M_TRIM_THRESHOLD: never give back the free end of the heap
    -2: 64 << 20,  # M_TOP_PAD: what the heap grows by at least
}


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors of up to 1 GB for the next ones. Only glibc can, from release 2.35 on.

    It gives blocks above 32 MB back to the system at every `free`. A training step then gets all pages of its logits
    anew, each by a fault that fills it with zeros: up to 40 % of the time of a small model with a large vocabulary. The
    price is fragments: a process may keep up to a fifth more.
    """
    if sys.platform.startswith("linux") and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        for option, value in _OPTIONS.items():
            mallopt(option, value)
