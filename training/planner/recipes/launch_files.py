"""Accelerate launch files of a recipe that the planner writes: pretraining as planned, tuning on as few devices."""

from training.common.errors import UserError
from training.planner.layout import Layout
from training.planner.plan import Plan

MACHINE = 8  # devices of one
_STATES = 18  # bytes per parameter of weights, gradients and AdamW, with bf16
_KINDS = {"ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp2": "FSDP"}

_FSDP = """\
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: ScratchDecoderLayer
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_activation_checkpointing: false   # the recipe's own key does this
  fsdp_cpu_ram_efficient_loading: false
  fsdp_offload_params: false
"""
_DEEPSPEED = """\
deepspeed_config:
  zero_stage: {stage}
  zero3_init_flag: false
  zero3_save_16bit_model: true           # gather the weights, to write the model as one directory
  offload_optimizer_device: none
  offload_param_device: none
"""
_PARALLELISM = """\
parallelism_config:
  parallelism_config_dp_replicate_size: {layout.replicas}   # copies of the model
  parallelism_config_dp_shard_size: {layout.shards}   # groups, over which FSDP2 divides each copy
  # Devices of a group, which divide every matrix and exchange activations in every layer: keep them in one machine.
  parallelism_config_tp_size: {layout.tensor_parallel}
  parallelism_config_cp_size: 1
"""


def launch_files(plan: Plan) -> dict[str, str]:
    """The text of the launch file of each stage that needs one. Raises UserError: Accelerate has no such layout."""
    layout = plan.layout
    if layout.devices == 1:
        return {}
    if plan.shape.optimizer == "muon" and (layout.tensor_parallel > 1 or layout.sharding in ("zero2", "zero3")):
        raise UserError(f"'optimizer': muon needs whole matrices, which {layout.describe()} divides; use adamw")
    if layout.tensor_parallel > 1 and (layout.sharding != "fsdp2" or layout.shards == 1):
        raise UserError(
            f"'tensor_parallel': Accelerate starts it only beside FSDP2 over two or more groups, not "
            f"{layout.describe()}; use fsdp2, and at least {2 * layout.tensor_parallel} devices"
        )
    tuning = Layout(layout.device, tuning_devices(plan), layout.sharding)
    whole = Layout(layout.device, tuning.devices, "ddp")
    return {
        "pretrain": _launch_file("pretraining", layout),
        "sft": _launch_file("SFT of all weights", tuning),
        "dpo": _launch_file("DPO with LoRA", whole) if adapts(plan) else _launch_file("DPO of all weights", tuning),
    }


def adapts(plan: Plan) -> bool:
    """Whether DPO trains a LoRA adapter: if each device can hold the whole model in bf16."""
    return 2 * plan.architecture.num_parameters < 0.4 * plan.layout.device.memory


def tuning_devices(plan: Plan) -> int:
    """One machine, or as many devices as hold the states in half of their memory."""
    devices = min(plan.layout.devices, MACHINE)
    while _STATES * plan.architecture.num_parameters / devices > 0.5 * plan.layout.device.memory:
        devices *= 2
    return min(devices, plan.layout.devices)


def _launch_file(work: str, layout: Layout) -> str:
    count = -(-layout.devices // MACHINE)  # machines
    several = f", {count} machines" * (count > 1)
    head = [f"# Launch file of {work}: {layout.describe()}{several}."]
    if count > 1:
        head += [
            "# Start it on every machine with its own --machine_rank, and the address of the first as",
            "# --main_process_ip: docs/cluster.md, which also has a Slurm script that restarts after a lost machine.",
        ]
    lines = [
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {_KINDS[layout.sharding]}",
        f"num_machines: {count}",
        f"num_processes: {layout.devices}   # one per device, of all machines",
        "machine_rank: 0",
    ]
    if count > 1:
        lines += ["main_process_ip: 10.0.0.1", "main_process_port: 29500", "rdzv_backend: static"]
    else:
        lines += ["main_process_port: 0   # any free port, so that several runs can share a machine"]
    text = "\n".join([*head, *lines, "mixed_precision: bf16"]) + "\n"
    if layout.sharding == "fsdp2":
        text += _FSDP
    elif layout.sharding in ("zero2", "zero3"):
        text += _DEEPSPEED.format(stage=layout.sharding[-1])
    return text + (_PARALLELISM.format(layout=layout) if layout.tensor_parallel * layout.replicas > 1 else "")
