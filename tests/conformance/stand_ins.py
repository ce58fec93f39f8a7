"""What transformers' shared tests import from its repository and its source distribution leaves out.

`run.py` lays a copy of this file wherever one of these modules is missing; a release that ships one keeps its own.
"""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# --- utils/test_configuration_utils.py: settings that every configuration must take and keep ---

config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["SomeModel"],
    "id2label": {0: "label", 1: "other"},
    "label2id": {"label": 0, "other": 1},
    "problem_type": "regression",
    "pad_token_id": 7,
    "bos_token_id": 8,
    "eos_token_id": 9,
    "tie_word_embeddings": False,
}

# --- exporters/test_export.py and generation/test_utils.py: their own tests are not distributed ---


class ExportTesterMixin:
    pass


class GenerationTesterMixin:
    pass


# --- distributed_testing_utils.py: processes of one group on this machine's processor ---


def _get_distributed_backend() -> str:
    return "gloo"


def _get_distributed_device_type() -> str:
    return "cpu"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu")


def _set_rank_device(rank: int):
    pass


def _start_rank_processes(function, args: tuple, nprocs: int):
    """Run `function(rank, *args)` in `nprocs` processes, and raise what any of them raises."""
    # Forked from a process that has imported everything and started no thread: spawning would import it all each time.
    mp.get_context("forkserver").set_forkserver_preload(["cases"])
    mp.start_processes(function, args=args, nprocs=nprocs, start_method="forkserver")


def _in_group(rank: int, function, args: tuple, world_size: int, port: int):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()


def run_distributed(world_size: int):
    """A decorator: call the function as `function(rank, *args)` in a process group of `world_size`."""

    def decorate(function):
        def run(*args):
            store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            _start_rank_processes(_in_group, (function, args, world_size, store.port), world_size)

        return run

    return decorate
