"""The processor to train on: which device, whether it has bfloat16, and what is fastest there."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pick_device() -> "torch.device":
    """A CUDA GPU if there is one, else Apple's GPU, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def peak_memory(device: "torch.device") -> int | None:
    """Bytes that this process has held at most: on a GPU in tensors, on a CPU in main memory. None where unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if device.type != "cpu" or not status.is_file():
        return None
    lines = status.read_text(encoding="utf-8").splitlines()
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return 1024 * peaks[0] if peaks else None  # some sandboxes leave the line out


def has_bf16(device: "torch.device") -> bool:
    """Whether the device has native bfloat16. Emulated, it is slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # PyTorch for Apple's processors comes without oneDNN; its own bf16 products are slower than Apple's in fp32.
        if not torch.backends.mkldnn.is_available():
            return False
        # The flags for which oneDNN has bf16 kernels; on Arm, BF16 is part of Armv8.6.
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "arm_bf16"))
    return False


def synchronize(device: "torch.device") -> None:
    """Wait for everything that is queued on the device."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize()


def seconds(
    work: Callable[[], object], device: "torch.device", clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of `work` by a clock, including everything it queues on the device."""
    synchronize(device)
    start = clock()
    work()
    synchronize(device)
    return clock() - start


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
