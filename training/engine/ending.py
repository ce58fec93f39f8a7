"""The end of processes that trained together."""

import torch
from accelerate import Accelerator

_ended: list[torch.distributed.ProcessGroup] = []


def end_training(accelerator: Accelerator) -> None:
    """Accelerate's, after which a process cannot hang.

    A model in DistributedDataParallel outlives the process group, as its last owner, and lets go of it while it holds
    the interpreter. The group's destructor waits for the threads of gloo, and these for the interpreter, where they
    still have tensors of the last exchange to let go of. So another owner stays here until the process ends.
    """
    if torch.distributed.is_initialized():
        _ended.append(torch.distributed.group.WORLD)
    accelerator.end_training()
