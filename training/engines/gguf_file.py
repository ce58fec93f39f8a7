"""GGUF file of a language model: architecture, tensors and vocabulary in one file, for llama.cpp and Ollama.

llama.cpp's own converter rejects every newly trained vocabulary: it knows a tokenizer by the ids of one fixed text.
This file writes what that converter would, for the three architectures that our models have in common with llama.cpp.
"""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from modeling_scratch import ScratchConfig
from modeling_scratch.conversion_scratch import nearest_architecture, scratch_config, stock_config
from training.engines.gguf_names import gguf_name
from training.engines.gguf_vocabulary import Vocabulary

PRECISIONS = {
    "f32": (Kind.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32  # numbers of a row that share one scale in Q8_0


def check_network(config: PreTrainedConfig, precision: str) -> PreTrainedConfig:
    """The configuration of a network as the stock class that llama.cpp has: Llama, Qwen3 or GPT-2.

    Raises:
        ValueError: llama.cpp lacks the architecture or one of its options, or a size does not divide into blocks.
    """
    if isinstance(config, ScratchConfig):
        config = stock_config(config, nearest_architecture(config))
    else:
        scratch_config(config)  # rejects options that neither we nor llama.cpp have
    kind = config.model_type
    if kind == "qwen3" and config.attention_bias:
        raise ValueError("attention_bias is True, which llama.cpp's qwen3 lacks; its llama has it (qk_norm: false)")
    if kind == "qwen3" and "sliding_attention" in config.layer_types:
        raise ValueError(f"sliding_window is {config.sliding_window}; llama.cpp's qwen3 attends to the whole sequence")
    if kind == "gpt2" and config.activation_function == "gelu":
        raise ValueError("mlp_type is 'gelu_exact'; llama.cpp's gpt2 has the tanh approximation alone")
    if kind != "gpt2":
        rotations = ("default", "linear", "llama3") if kind == "llama" else ("default", "linear")
        if config.rope_parameters["rope_type"] not in rotations:
            raise ValueError(
                f"rope_type is '{config.rope_parameters['rope_type']}'; --to gguf has {', '.join(rotations)} for {kind}"
            )
    if precision == "q8_0":
        for name, size in _row_sizes(config).items():
            if size % BLOCK:
                raise ValueError(f"{name} is {size}, not a multiple of {BLOCK} as q8_0 needs; use precision f16")
    return config


def _row_sizes(config: PreTrainedConfig) -> dict[str, int]:
    """The lengths of the rows of the matrices, by the options that set them."""
    if config.model_type == "gpt2":
        return {"hidden_size": config.n_embd, "intermediate_size": config.n_inner or 4 * config.n_embd}
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads * head_dim": config.num_attention_heads * config.head_dim,
    }


def write_gguf(file: Path, model: PreTrainedModel, vocabulary: Vocabulary, precision: str, name: str) -> None:
    """Write a model of a stock class.

    Args:
        precision: a key of `PRECISIONS`, of the matrices; vectors and learned positions stay in F32.
        name: of the model, which programs show.
    """
    kind, file_type = PRECISIONS[precision]
    writer = gguf.GGUFWriter(file, model.config.model_type)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_architecture(writer, model.config)
    _add_vocabulary(writer, vocabulary)
    for target, tensor in _tensors(model):
        used = kind if is_rounded(target, tensor) else Kind.F32
        writer.add_tensor(target, gguf.quants.quantize(tensor, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_architecture(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the tokenizer. Each key that is always written here has a default in llama.cpp that is not ours."""
    writer.add_tokenizer_model("gpt2")  # its name for byte-level BPE
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_eot_token_id(vocabulary.eot)
    if vocabulary.pad is not None:
        writer.add_pad_token_id(vocabulary.pad)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.suppressed:
        writer.add_array("tokenizer.ggml.suppress_tokens", vocabulary.suppressed)  # the package has no method for it
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors in float32 by their names in a GGUF file, matrices as (out, in)."""
    config, weights = model.config, model.state_dict()
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight")  # llama.cpp then takes the embedding
    for name, tensor in weights.items():
        tensor = as_matrix(name, tensor.float())
        if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            # We rotate coordinate i of a head with i + head_dim / 2, llama.cpp's llama 2i with 2i + 1.
            tensor = tensor.unflatten(0, (heads, 2, config.head_dim // 2)).transpose(1, 2).flatten(0, 2)
        yield gguf_name(name, config.model_type), tensor.contiguous().numpy()
    if config.model_type == "llama" and config.rope_parameters["rope_type"] == "llama3":
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
        yield "rope_freqs.weight", (plain / scaled).numpy()  # divisors; its keys have no place for this type


def as_matrix(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of a stock model with its rows along the inputs: GPT-2 stores its matrices as (in, out)."""
    return tensor.T if ".c_" in name and tensor.ndim == 2 else tensor


def is_rounded(name: str, tensor: np.ndarray | torch.Tensor) -> bool:
    """Whether the tensor has the precision of the file: a matrix, other than GPT-2's positions."""
    return tensor.ndim == 2 and name not in ("position_embd.weight", "transformer.wpe.weight")
