"""What is decided by the processor: its precision, and compiling only where a compiler works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.common.device import has_bf16

ROOT = Path(__file__).parents[2]
COMPILE = "import torch; from training.common.compilation import compiles; print(compiles(torch.device('cpu')))"
# Capabilities as `torch.cpu.get_capabilities` names them, whether PyTorch has oneDNN there, and our choice.
PROCESSORS = {
    "x86-64 of 2003": ({"avx2": False}, True, False),
    "laptop with AVX2 only": ({"avx2": True, "fma3": True}, True, False),
    "AVX-512 without bf16": ({"avx2": True, "avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, True, False),
    "AVX-512 with bf16": ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, True, True),
    "AMX": ({"avx2": True, "amx_tile": True, "amx_bf16": True}, True, True),
    "Arm server with bf16": ({"neon": True, "arm_bf16": True}, True, True),
    "Arm before 8.6": ({"neon": True, "arm_bf16": False}, True, False),
    "Apple M2 and later": ({"neon": True, "arm_bf16": True}, False, False),
}


@pytest.mark.parametrize("capabilities, has_onednn, chosen", PROCESSORS.values(), ids=PROCESSORS)
def test_bf16_only_where_it_is_fast(capabilities, has_onednn, chosen, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    assert has_bf16(torch.device("cpu")) is chosen
    assert not has_bf16(torch.device("mps"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [{"CXX": "/nonexistent"}, {"PATH": ""}, {"CXX": "/bin/false"}, {"TORCHINDUCTOR_CACHE_DIR": "/dev/null/cache"}],
    ids=lambda changed: next(iter(changed)),
)
def test_one_line_where_nothing_compiles(tmp_path, changed):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)} | changed
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert not done.returncode and not done.stderr, done.stderr
    reason, answer = done.stdout.splitlines()
    assert reason.startswith("not compiled: ") and answer == "False"
