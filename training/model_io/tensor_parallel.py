"""Tensor parallelism: the matrices of a model divided among the processes of a group.

The processes of one group read the same sequences, and each computes some of the heads and of the MLP's width. The
sizes come from `parallelism_config` in Accelerate's launch file; which matrix is divided how, from the model's own
`tp_plan`. FSDP2 then shards each part over the groups.
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers import PreTrainedConfig, PreTrainedModel

from training.common.errors import UserError

# The styles of transformers' plans as torch's. A norm of heads is replicated, and has only the gradient of its own.
_STYLES = {
    "colwise": ColwiseParallel(),
    "rowwise": RowwiseParallel(),
    "colwise_gather_output": ColwiseParallel(output_layouts=Replicate()),
    "embedding_rowwise": RowwiseParallel(input_layouts=Replicate()),
}
_OF_OWN_HEADS = "replicated_with_grad_allreduce"


def group_size(accelerator: Accelerator) -> int:
    """The number of processes that share the matrices, and so read the same sequences; 1 without tensor parallelism."""
    return accelerator.parallelism_config.tp_size if accelerator.parallelism_config else 1


def check_divisible(config: PreTrainedConfig, size: int) -> None:
    """Reject a model whose heads and widths a group of so many processes cannot share evenly. Raises UserError."""
    for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        if getattr(config, key) % size:
            raise UserError(
                f"'model.{key}': {getattr(config, key)} is not a multiple of the {size} tensor-parallel processes; "
                "change it, or parallelism_config_tp_size in the launch file"
            )


def divide_matrices(model: PreTrainedModel, accelerator: Accelerator) -> None:
    """Divide the matrices of a model among the processes of this one's group, in place.

    All parameters become DTensors; those that are not divided are replicated. Raises what `check_divisible` raises.
    """
    check_divisible(model.config, group_size(accelerator))
    mesh = accelerator.torch_device_mesh["tp"]
    plan = {f"{model.base_model_prefix}.embed_tokens": "embedding_rowwise", **model.tp_plan}
    of_own_heads = {name for name, style in plan.items() if style == _OF_OWN_HEADS}
    styles = {name: _STYLES[style] for name, style in plan.items() if style in _STYLES}
    parallelize_module(model, mesh, styles, src_data_rank=None)  # each process has drawn the same weights
    model.tie_weights()
    for name, module in model.named_modules():
        wildcard = ".".join("*" if part.isdigit() else part for part in name.split("."))
        _replicate(module, mesh, Partial() if wildcard in of_own_heads else Replicate())


def _replicate(module: nn.Module, mesh: DeviceMesh, gradient: Partial | Replicate) -> None:
    """Replicate what is left of a module's own parameters. Its forward pass gets them as plain tensors.

    Args:
        gradient: of one process: a part of the sum over the group, or the same in each.
    """
    names = [name for name, weight in module.named_parameters(recurse=False) if not isinstance(weight, DTensor)]
    for name in names:
        weight = DTensor.from_local(module.get_parameter(name).data, mesh, [Replicate()], run_check=False)
        module.register_parameter(name, nn.Parameter(weight))
    if not names:
        return
    kept: dict[str, nn.Parameter] = {}

    def give_plain(module: nn.Module, _: tuple[torch.Tensor, ...]) -> None:
        kept.update({name: module._parameters[name] for name in names})
        module._parameters.update({name: kept[name].to_local(grad_placements=[gradient]) for name in names})

    def put_back(module: nn.Module, *_: object) -> None:
        module._parameters.update(kept)

    module.register_forward_pre_hook(give_plain)
    module.register_forward_hook(put_back, always_call=True)
