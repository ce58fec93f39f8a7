"""The Accelerator of a pretraining run: the launch file's processes and engine, configured for the recipe."""

from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration
from transformers import PreTrainedModel
from transformers.integrations import unset_hf_deepspeed_config

from training.common.device import has_bf16, pick_device
from training.common.errors import UserError
from training.model_io.tensor_parallel import group_size
from training.pretraining.config import PretrainConfig
from training.pretraining.trackers import check_trackers
from training.stages.provenance import staging_dir


def build_accelerator(config: PretrainConfig) -> Accelerator:
    """The Accelerator, with its accumulation steps set and its engine (FSDP, DeepSpeed) configured.

    Raises:
        UserError: the processes cannot share the batch, or the recipe does not fit the launch file.
    """
    bf16 = has_bf16(pick_device()) if config.bf16 is None else config.bf16
    check_trackers(config.report_to)
    accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        log_with=config.report_to or None,
        project_config=ProjectConfiguration(logging_dir=str(staging_dir(config.output_dir) / "trackers")),
    )
    try:
        shares = shares_of_batch(accelerator)
        at_once = config.sequences_at_once(shares)
    except ValueError as error:
        raise UserError(str(error)) from None
    if config.on_nonfinite == "skip" and accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise UserError("'on_nonfinite': skip does not work with DeepSpeed, which applies every step; set it to stop")
    accelerator.gradient_accumulation_steps = config.global_batch_size // (at_once * shares)
    if accelerator.distributed_type == DistributedType.FSDP:
        _configure_fsdp(accelerator, config)
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        _configure_deepspeed(accelerator, config, at_once)
    return accelerator


def shares_of_batch(accelerator: Accelerator) -> int:
    """The number of shares that a batch is divided into: one for each process, or each tensor-parallel group."""
    return accelerator.num_processes // group_size(accelerator)


def share_of_batch(accelerator: Accelerator) -> int:
    """The number of this process's share. The processes of a group have adjacent numbers, so they share a machine."""
    return accelerator.process_index // group_size(accelerator)


def prepare(
    accelerator: Accelerator, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Model and optimizer, wrapped for the launch file's engine."""
    if group_size(accelerator) == 1:
        return accelerator.prepare(model, optimizer)
    # `prepare` would first replicate the parameters that are not divided, with a class that transformers has removed.
    return accelerator._prepare_fsdp2(model, optimizer)


def _configure_fsdp(accelerator: Accelerator, config: PretrainConfig) -> None:
    plugin = accelerator.state.fsdp_plugin
    if group_size(accelerator) > 1:
        _check_tensor_parallel(config)
    if plugin.fsdp_version != 2:
        raise UserError("'fsdp_config.fsdp_version': must be 2; see recipes/accelerate/fsdp2.yaml")
    if plugin.mixed_precision_policy:
        # Accelerate's default sums gradients in bf16 and rounds every loss to bf16, which leaves three digits.
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


def _check_tensor_parallel(config: PretrainConfig) -> None:
    if config.optimizer.name == "muon":
        raise UserError(
            "'optimizer.name': muon needs whole matrices, which tensor parallelism divides; use adamw, or FSDP2 alone "
            "(recipes/accelerate/fsdp2.yaml)"
        )
    if config.torch_compile:  # tried with torch 2.13: the losses differ from the second step on
        raise UserError("'torch_compile': compiled layers get wrong gradients with tensor parallelism; leave it out")


def _configure_deepspeed(accelerator: Accelerator, config: PretrainConfig, at_once: int) -> None:
    if config.optimizer.name == "muon":
        raise UserError(
            "'optimizer.name': muon needs whole matrices, which DeepSpeed flattens and splits; use adamw, or FSDP2 "
            "(recipes/accelerate/fsdp2.yaml)"
        )
    # With its configuration set, transformers builds the model flattened and split: other random weights, and no
    # shapes by which to form the optimizer's groups. DeepSpeed splits it later, in `accelerator.prepare`.
    unset_hf_deepspeed_config()
    # DeepSpeed reads these from its own configuration only.
    accelerator.deepspeed_plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": at_once,
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        "gradient_clipping": config.max_grad_norm,
    }
