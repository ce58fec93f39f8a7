"""Random draws as a pure function of (seed, step, process).

Every training step first seeds all generators from these three numbers, so no generator has to be saved. A step draws
the same dropout masks however often the run was interrupted before it. Validations and samples between steps change
nothing, and a run may resume with another number of processes.
"""

import hashlib
import random

import numpy as np
import torch


def seed_step(seed: int, step: int, process_index: int, device: torch.device) -> None:
    """Seed the generators of Python, NumPy and PyTorch (CPU and `device`) for one step."""
    digest = hashlib.blake2b(f"{seed}:{step}:{process_index}".encode(), digest_size=8).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest, np.uint32))
    # `torch.manual_seed` also probes absent accelerators, which takes ten times as long as everything else here.
    torch.default_generator.manual_seed(int.from_bytes(digest))
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(int.from_bytes(digest))
