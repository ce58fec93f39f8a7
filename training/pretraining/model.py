"""The model of a pretraining recipe: its configuration, checked; the network with random weights; on its device."""

import math
import re
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.compilation import compiles, worth_compiling
from training.common.errors import UserError, one_line
from training.machine.attention import pick_attention
from training.model_io.model_folder import generation_config, special_token_ids
from training.model_io.tensor_parallel import divide_matrices, group_size
from training.pretraining.config import PretrainConfig


def model_config(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> ScratchConfig:
    """The configuration of the network: the preset, changed by the options under `model`.

    Raises:
        UserError: an option of `model` is unknown or wrong, or the vocabulary is smaller than the tokenizer's.
    """
    vocab_size = math.ceil(len(tokenizer) / config.pad_vocab_to_multiple_of) * config.pad_vocab_to_multiple_of
    options = {"vocab_size": vocab_size, "max_position_embeddings": config.sequence_length} | config.model
    try:
        network = ScratchConfig.from_preset(config.preset, **(special_token_ids(tokenizer) | options))
    except (ValueError, StrictDataclassError) as error:
        raise UserError(_explain(error, options)) from None
    if network.vocab_size < len(tokenizer):
        raise UserError(
            f"'model.vocab_size': {network.vocab_size} is smaller than the tokenizer's {len(tokenizer)} tokens; "
            "leave it out or raise it"
        )
    if network.max_position_embeddings < config.sequence_length:
        raise UserError(
            f"'sequence_length': {config.sequence_length} exceeds model.max_position_embeddings "
            f"({network.max_position_embeddings}); lower it, or raise max_position_embeddings"
        )
    return network


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> ScratchForCausalLM:
    """The network with random fp32 weights, drawn from `seed`. Raises what `model_config` raises."""
    network = model_config(config, tokenizer)
    set_seed(config.seed)
    model = ScratchForCausalLM._from_config(network, attn_implementation=config.attn_implementation)
    model.generation_config = generation_config(tokenizer, network.vocab_size)  # for the samples
    return model.float()


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute the activations of every layer in its backward pass, instead of keeping them."""
    # transformers 5.17 has only the older name, of which later releases warn.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def place_model(
    model: ScratchForCausalLM, config: PretrainConfig, accelerator: Accelerator, operations_per_step: int
) -> bool:
    """Prepare the network for training, and put it on its device: divided, with its attention, compiled if asked.

    Args:
        operations_per_step: floating-point operations. If the recipe does not say so, long runs are compiled.

    Returns:
        Whether the layers are compiled: if that was asked for and this machine can.

    Raises:
        UserError: the tensor-parallel processes cannot divide the model evenly.
    """
    device = accelerator.device
    if config.activation_checkpointing:
        checkpoint_activations(model)
    divided = group_size(accelerator) > 1
    if divided:  # before the device is asked to hold the whole model
        divide_matrices(model, accelerator)
    model.to(device)
    compiled = config.torch_compile
    if compiled is None:
        own_engine = accelerator.distributed_type == DistributedType.DEEPSPEED  # hooks every module
        operations = config.max_steps * operations_per_step
        compiled = not own_engine and not divided and worth_compiling(device, operations)
    compiled = compiled and compiles(device)
    if config.attn_implementation is None:
        model.set_attn_implementation(pick_attention(device, config.sequence_length, compiled))
    if compiled:
        model.compile_regions()
    return compiled


def _explain(error: Exception, options: dict[str, Any]) -> str:
    """The message for a wrong option; transformers' strict configurations wrap its cause."""
    cause = error.__cause__ or error
    field = re.match(r"Validation error for field '(\w+)'", str(error))
    if field and isinstance(cause, TypeError):
        kind = ScratchConfig.__annotations__[field[1]]
        return f"'model.{field[1]}' takes {getattr(kind, '__name__', kind)}, not {options.get(field[1])!r}"
    return f"'model{f'.{field[1]}' if field else ''}': {one_line(cause)}"
