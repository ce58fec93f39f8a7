"""What a recipe asks for, made or refused before the first step: the model with random weights, the accelerator."""

import math
import re
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration, set_seed
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedTokenizerFast
from transformers.integrations import unset_hf_deepspeed_config

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.device import has_bf16, pick_device
from training.common.errors import UserError
from training.common.recipe import build
from training.common.stage import staging_dir
from training.model_io.model_folder import generation_config, special_token_ids
from training.pretraining.config import PretrainConfig
from training.pretraining.scaling import derive
from training.pretraining.throughput import matrix_parameters
from training.pretraining.trackers import check_trackers


def derive_from_depth(
    config: PretrainConfig, given: dict[str, Any], tokenizer: PreTrainedTokenizerFast, where: str
) -> tuple[PretrainConfig, list[str]]:
    """The recipe with all that follows from its `depth`, and a line for each of these keys.

    Args:
        given: what the recipe and the command line say, and `where`, as for `build`.
    """

    def count(values: dict[str, Any]) -> int:
        with torch.device("meta"):
            return matrix_parameters(ScratchForCausalLM(model_config(build(PretrainConfig, values, where), tokenizer)))

    values, lines = derive(config, given, count)
    return build(PretrainConfig, values, where), lines


def model_config(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> ScratchConfig:
    """The dials of the network, checked.

    Raises:
        UserError: a dial of `model` is unknown or wrong, or the vocabulary is smaller than the tokenizer's.
    """
    rows = math.ceil(len(tokenizer) / config.pad_vocab_to_multiple_of) * config.pad_vocab_to_multiple_of
    dials = {"vocab_size": rows, "max_position_embeddings": config.sequence_length} | config.model
    try:
        network = ScratchConfig.from_preset(config.preset, **(special_token_ids(tokenizer) | dials))
    except (ValueError, StrictDataclassError) as error:
        raise UserError(_wrong_dial(error, dials)) from None
    if network.vocab_size < len(tokenizer):
        raise UserError(
            f"'model.vocab_size': {network.vocab_size} is smaller than the tokenizer's {len(tokenizer)} tokens; "
            "leave it out or raise it"
        )
    if network.max_position_embeddings < config.sequence_length:
        raise UserError(
            f"'sequence_length': {config.sequence_length} exceeds model.max_position_embeddings "
            f"({network.max_position_embeddings})"
        )
    return network


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> ScratchForCausalLM:
    """The network with random weights. Raises what `model_config` does."""
    network = model_config(config, tokenizer)
    set_seed(config.seed)
    model = ScratchForCausalLM._from_config(network, attn_implementation=config.attn_implementation)
    model.generation_config = generation_config(tokenizer, network.vocab_size)  # for the samples
    return model.float()


def _wrong_dial(error: Exception, dials: dict[str, Any]) -> str:
    """What is wrong with a dial: transformers' strict configurations wrap it in how they found it."""
    cause = error.__cause__ or error
    field = re.match(r"Validation error for field '(\w+)'", str(error))
    if field and isinstance(cause, TypeError):
        kind = ScratchConfig.__annotations__[field[1]]
        return f"'model.{field[1]}' takes {getattr(kind, '__name__', kind)}, not {dials.get(field[1])!r}"
    return f"'model{f'.{field[1]}' if field else ''}': {' '.join(str(cause).split())}"


def build_accelerator(config: PretrainConfig) -> Accelerator:
    """What the launch file asks for, made to fit the recipe.

    Raises:
        UserError: the batch cannot be shared among the processes, or the recipe and the launch file do not go together.
    """
    bf16 = has_bf16(pick_device()) if config.bf16 is None else config.bf16
    check_trackers(config.report_to)
    accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        log_with=config.report_to or None,
        project_config=ProjectConfiguration(logging_dir=str(staging_dir(config.output_dir) / "trackers")),
    )
    rows = config.per_device_train_batch_size * accelerator.num_processes
    if config.global_batch_size % rows:
        raise UserError(
            f"'global_batch_size': {config.global_batch_size} is not a multiple of per_device_train_batch_size "
            f"({config.per_device_train_batch_size}) x processes ({accelerator.num_processes})"
        )
    if config.on_nonfinite == "skip" and accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise UserError(
            "'on_nonfinite': DeepSpeed takes its steps by itself, so that none can be skipped; set it to stop"
        )
    accelerator.gradient_accumulation_steps = config.global_batch_size // rows
    if accelerator.distributed_type == DistributedType.FSDP:
        _fit_fsdp(accelerator)
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        _fit_deepspeed(accelerator, config)
    return accelerator


def _fit_fsdp(accelerator: Accelerator) -> None:
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise UserError("'fsdp_config.fsdp_version' of the launch file: must be 2, as in recipes/accelerate/fsdp2.yaml")
    if plugin.mixed_precision_policy:
        # Accelerate's own would add up gradients in bf16, and round every loss to it: 3 digits.
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


def _fit_deepspeed(accelerator: Accelerator, config: PretrainConfig) -> None:
    if config.optimizer.name == "muon":
        raise UserError(
            "'optimizer.name': muon needs whole matrices, and DeepSpeed cuts them to flat pieces; use adamw, or FSDP "
            "(recipes/accelerate/fsdp2.yaml)"
        )
    # Otherwise transformers would build the model in flat pieces, with other random weights and no shapes by which to
    # tell the optimizer's groups. DeepSpeed cuts it when it is prepared.
    unset_hf_deepspeed_config()
    # It takes these from its own configuration alone.
    accelerator.deepspeed_plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": config.per_device_train_batch_size,
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        "gradient_clipping": config.max_grad_norm,
    }
