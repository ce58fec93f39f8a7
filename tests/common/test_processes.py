"""Processes that trained together come to their end."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

ROUNDS = """
import gc, sys, torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from training.common.processes import end_training

def train(rank, folder):
    sys.setswitchinterval(100)  # threads get the interpreter only where it is given up: the rare order becomes common
    for number in range(20):
        dist.init_process_group("gloo", init_method=f"file://{folder}/{number}", rank=rank, world_size=2)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
        model(torch.ones(2, 4)).sum().backward()
        gathered = [torch.zeros(1), torch.zeros(1)]
        dist.all_gather(gathered, torch.ones(1))
        end_training(Accelerator(cpu=True))
        assert not dist.is_initialized()
        del model
        gc.collect()
        AcceleratorState._reset_state(reset_partial_state=True)

if __name__ == "__main__":
    torch.multiprocessing.spawn(train, args=(sys.argv[1],), nprocs=2)
"""


def test_a_model_that_outlives_its_process_group_does_not_hang(tmp_path):
    """Without an owner of the group beside the model, one of the first ten rounds never ended."""
    (tmp_path / "rounds.py").write_text(ROUNDS)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, tmp_path / "rounds.py", tmp_path], env=environment, timeout=180, check=True)
