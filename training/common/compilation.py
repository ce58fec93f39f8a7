"""Compiling a network: whether it is worth its time, and whether this machine can."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from training.common.errors import one_line

if TYPE_CHECKING:
    import torch

# Floating-point operations of a run from which compiling saves more time than it takes: ten seconds to a minute.
# Estimated: about two minutes of uncompiled training at 0.15 TFLOP/s (two CPU cores) and at 400 TFLOP/s (a data-center
# GPU), of which compiled layers save a quarter to a third (measured on CPUs, assumed for GPUs).
LONG_ENOUGH_TO_COMPILE = {"cpu": 2e13, "cuda": 5e16}
COMPILERS = {"darwin": "clang++", "win32": "cl"}  # which PyTorch calls; on other systems g++


def worth_compiling(device: "torch.device", operations: float) -> bool:
    """Whether a run of so many floating-point operations should be compiled, if the device can: see `compiles`.

    The answer depends on nothing measured, so that a resumed run is compiled as it was before.
    """
    if operations < LONG_ENOUGH_TO_COMPILE.get(device.type, float("inf")):
        return False
    has_compiler = shutil.which(os.environ.get("CXX", COMPILERS.get(sys.platform, "g++"))) is not None
    if device.type == "cuda":
        return has_compiler and importlib.util.find_spec("triton") is not None
    # On many systems Python's headers are a separate package (python3-dev).
    return has_compiler and Path(sysconfig.get_path("include"), "Python.h").is_file()


def compiles(device: "torch.device") -> bool:
    """Whether a small function compiles and runs on the device; prints why not.

    A compiler may be missing, broken, or unable to write its files. PyTorch would only notice in the first step.
    """
    import torch

    try:
        torch.compile(lambda values: values.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # as many kinds as there are compilers
        print(f"not compiled: {_reason(error)}")
        return False
    return True


def _reason(error: Exception) -> str:
    """The first line of an error of PyTorch's compiler that says what is wrong."""
    lines = [line for line in map(str.strip, str(error).splitlines()) if line and not line.startswith("backend=")]
    return one_line([*lines, type(error).__name__][0]).rstrip(".")
