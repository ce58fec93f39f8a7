"""Several runs of `scratch`, one after the other, in every process that a launcher starts for a test.

    accelerate launch --config_file FILE tests/helpers/launched.py RUNS

RUNS is a JSON file, {name: arguments of `scratch`}. The first process writes RUNS with the suffix `.done`, {name: exit
code, kind of distribution, number of processes, number of compiled graphs}.

Accelerate shards over accelerators only: with a launch file for FSDP or DeepSpeed, processes on CPUs get plain data
parallel training. SHARD_ON_CPU in the environment hides from it that these are CPUs.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType

from training import cli


def main(file: Path) -> None:
    done = {}
    for name, arguments in json.loads(file.read_text()).items():
        rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if done:  # the run before has ended the process group; in the launcher's store another would not form
            store = torch.distributed.FileStore(f"{file}.{name}", processes)
            torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes)
        PartialState(cpu=True)
        if "SHARD_ON_CPU" in os.environ:
            os.environ.pop("ACCELERATE_USE_CPU", None)
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        code = cli.main(arguments)
        done[name] = {"code": code, "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"]}
        if AcceleratorState._shared_state:
            accelerate = AcceleratorState()
            done[name] |= {"kind": str(accelerate.distributed_type), "processes": accelerate.num_processes}
        if rank == 0:
            file.with_suffix(".done").write_text(json.dumps(done))
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        torch._dynamo.utils.counters.clear()
        if torch.distributed.is_initialized():  # a run that failed
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
