"""Standard-library modules that a fork server loads once, and the shared libraries that other modules need."""

import contextlib
import ctypes
import gc
import importlib
import os
import re
import sys

from training.sandbox import runners

# A fork copies the page tables of everything that is loaded. So a server loads what most programs import, and a second
# kind of server also loads modules that take longer to import than their pages cost. Any other module is imported by
# the program itself.
COMMON = "collections copy functools heapq itertools json math operator re string typing".split()
HEAVY = (
    "argparse ast asyncio calendar csv dataclasses datetime decimal doctest enum fractions hashlib inspect logging "
    "pathlib pprint random sqlite3 statistics tempfile textwrap threading traceback unittest uuid warnings zoneinfo"
).split()
_IMPORT_HEAVY = re.compile(rf"\b(?:import|from)\s+(?:[\w.]+\s*,\s*)*(?:{'|'.join(HEAVY)})\b")


def imports_heavy(*programs: str | None) -> bool:
    """Whether one of the programs seems to import a module of `HEAVY`; only its speed depends on the answer."""
    return any(_IMPORT_HEAVY.search(program) for program in programs if program)


def load(heavy: bool) -> None:
    """Load the common modules and, if `heavy`, the heavy ones; then prepare this process for cheap forks."""
    for name in COMMON + HEAVY * heavy:
        importlib.import_module(name)
    runners.rehearse()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page


def shared_libraries() -> list[str]:
    """Shared libraries outside Python's folders that extension modules of the standard library need, such as SQLite's.

    A process of its own loads every extension module and reports what the loader opened, under the loader's names.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            before = _loaded_libraries()
            _load_extensions()
            with contextlib.suppress(OSError):
                ctypes.CDLL("libgcc_s.so.1")  # glibc loads it when a thread is cancelled
            found = [path for path in _loaded_libraries() if path not in before and os.path.isabs(path)]
            with open(writer, "w") as report:
                report.write("\n".join(found))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as report:
        found = report.read().splitlines()
    os.waitpid(process, 0)
    return [path for path in found if not path.startswith(tuple(folder for folder in sys.path if folder))]


def _load_extensions() -> None:
    for folder in sys.path:
        if os.path.basename(folder) == "lib-dynload":
            for name in os.listdir(folder):
                if not name.startswith(("_test", "_xx", "xx", "_tkinter")):
                    try:
                        importlib.import_module(name.partition(".")[0])
                    except ImportError:  # a Python built without its library
                        continue


def _loaded_libraries() -> list[str]:
    """Paths of the shared libraries of this process, as the dynamic loader names them."""
    found = []

    class Loaded(ctypes.Structure):
        _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]  # the first of `struct dl_phdr_info`

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Loaded), ctypes.c_size_t, ctypes.c_void_p)
    def add(library, size, data):
        found.append(os.fsdecode(library.contents.name or b""))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(add, None)
    return found
