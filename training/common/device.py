"""The processor to train on: which device, whether it has bfloat16, and what is fastest there."""

import importlib.util
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Tokens in a sequence up to which the (seq, seq) scores of a head stay in a CPU's cache: 1 MB in fp32 at 512.
LONGEST_EAGER = 512
# Floating-point operations of a run from which compiling saves more time than it takes: ten seconds to a minute.
# Estimated: about two minutes of uncompiled training at 0.15 TFLOP/s (two CPU cores) and at 400 TFLOP/s (a data-center
# GPU), of which compiled layers save a quarter to a third (measured on CPUs, assumed for GPUs).
LONG_ENOUGH_TO_COMPILE = {"cpu": 2e13, "cuda": 5e16}


def pick_device() -> "torch.device":
    """A CUDA GPU if there is one, else Apple's GPU, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bf16(device: "torch.device") -> bool:
    """Whether the device has native bfloat16. Emulated, it is slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # The flags for which oneDNN has bf16 kernels; on Arm, BF16 is part of Armv8.6.
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "arm_bf16"))
    return False


def pick_attention(device: "torch.device", sequence_length: int, compiled: bool) -> str:
    """The fastest attention implementation for training."""
    # PyTorch's fused attention for processors is slower than plain matrix products around a compiled softmax, until
    # the (seq, seq) scores outgrow the cache.
    return "eager" if compiled and device.type == "cpu" and sequence_length <= LONGEST_EAGER else "sdpa"


def worth_compiling(device: "torch.device", operations: float) -> bool:
    """Whether a run of so many floating-point operations should be compiled.

    The answer depends on nothing measured, so that a resumed run is compiled as it was before.
    """
    if operations < LONG_ENOUGH_TO_COMPILE.get(device.type, float("inf")):
        return False
    compiler = "clang++" if sys.platform == "darwin" else "g++"
    has_compiler = shutil.which(os.environ.get("CXX", compiler)) is not None
    if device.type == "cuda":
        return has_compiler and importlib.util.find_spec("triton") is not None
    # On many systems Python's headers are a separate package (python3-dev).
    return has_compiler and Path(sysconfig.get_path("include"), "Python.h").is_file()


def synchronize(device: "torch.device") -> None:
    """Wait for everything that is queued on the device."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize()


def seconds(work: Callable[[], object], device: "torch.device") -> float:
    """Wall time of `work`, including everything it queues on the device."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def matrix_product(device: "torch.device", dtype: "torch.dtype", size: int) -> tuple[Callable[[], "torch.Tensor"], int]:
    """A square matrix product, as a function to call, and its floating-point operations."""
    import torch

    generator = torch.Generator(device).manual_seed(0)  # does not touch the random state of training
    left, right = torch.randn(2, size, size, generator=generator, device=device).to(dtype)
    return lambda: left @ right, 2 * size**3


def matrix_product_rate(device: "torch.device", dtype: "torch.dtype", budget: float = 0.2) -> float:
    """Floating-point operations per second of the device's matrix products: the best in `budget` seconds."""
    work, operations = matrix_product(device, dtype, size=8192 if device.type == "cuda" else 1024)
    work()  # the first call loads the library
    deadline, best = time.monotonic() + budget, float("inf")
    while time.monotonic() < deadline:
        best = min(best, seconds(work, device))
    return operations / best


def training_rate(device: "torch.device", dtype: "torch.dtype", budget: float = 0.5) -> float:
    """Floating-point operations per second of the matrix products in training steps of a small transformer, with all
    that stands between them: the best in `budget` seconds.

    Of two processors with equal large matrix products, one may train half as fast again as the other.
    """
    import torch
    from torch.nn import functional

    heads, size, inner, vocabulary = 4, 256, 704, 4096
    batch, seq = (16, 512) if device.type == "cuda" else (4, 256)
    generator = torch.Generator(device).manual_seed(0)  # does not touch the random state of training

    def weight(outputs: int, inputs: int) -> torch.Tensor:
        return (torch.randn(outputs, inputs, generator=generator, device=device) / inputs**0.5).requires_grad_()

    qkv_proj, o_proj, lm_head = weight(3 * size, size), weight(size, size), weight(vocabulary, size)
    gate_proj, up_proj, down_proj = weight(inner, size), weight(inner, size), weight(size, inner)
    hidden_states = torch.randn(batch, seq, size, generator=generator, device=device)
    labels = torch.zeros(batch * seq, dtype=torch.long, device=device)

    def linear(states: torch.Tensor, *weights: torch.Tensor) -> list[torch.Tensor]:
        states = functional.rms_norm(states, states.shape[-1:])
        return [functional.linear(states, weight) for weight in weights]

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            (qkv,) = linear(hidden_states, qkv_proj)
            # (batch, seq, 3 * size) -> 3 x (batch, heads, seq, head_dim)
            query, key, value = qkv.view(batch, seq, 3, heads, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            states = hidden_states + functional.linear(attended.transpose(1, 2).flatten(2), o_proj)
            gate, up = linear(states, gate_proj, up_proj)
            states = states + functional.linear(functional.silu(gate) * up, down_proj)
            (logits,) = linear(states, lm_head)
        functional.cross_entropy(logits.flatten(0, 1).float(), labels).backward()

    weights = 4 * size**2 + 3 * size * inner + size * vocabulary
    step()  # the first call loads the library
    deadline, best = time.monotonic() + budget, float("inf")
    while time.monotonic() < deadline:
        best = min(best, seconds(step, device))
    return 6 * weights * batch * seq / best
