"""Random draws as a pure function of (seed, step, process).

Every training step starts by seeding all generators from these three numbers. So there is no generator to save: a step
draws the same dropout masks whether the run came there in one go or was killed ten times on the way, a validation or a
sample between two steps disturbs nothing, and a run may go on with another number of processes.
"""

import hashlib
import random

import numpy as np
import torch


def seed_step(seed: int, step: int, process_index: int, device: torch.device) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, the latter of the CPU and of `device`, for one step."""
    digest = hashlib.blake2b(f"{seed}:{step}:{process_index}".encode(), digest_size=8).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest, np.uint32))
    # `torch.manual_seed` also looks for accelerators that are not there, which takes ten times as long as all of this.
    torch.default_generator.manual_seed(int.from_bytes(digest))
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(int.from_bytes(digest))
