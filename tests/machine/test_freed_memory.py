"""Freed memory is used again."""

import subprocess
import sys

import pytest
from terminal import ROOT

FAULTS = """
import resource, sys, torch
from training.machine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
tensor = torch.ones(16 << 20)  # 64 MB
for _ in range(20):
    tensor + 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(word: str) -> int:
    command = [sys.executable, "-c", FAULTS, word]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an option of Linux's C library")
def test_freed_tensors_are_used_again():
    few, many = faults("keep"), faults("default")
    assert many - few > 10 * (64 << 20) // 4096
