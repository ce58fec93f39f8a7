"""Conversion of models to and from transformers' own Llama, Qwen3 and GPT-2 classes, with equal logits.

A configuration that is exactly one of these architectures converts: every tensor is kept unchanged (GPT-2's are
transposed and joined, which loses nothing). Any other is rejected, with the options that differ. Language models
convert, and so do classifiers and reward models (`...ForSequenceClassification`). `to_stock` and
`from_stock` convert models. `stock_config` and `scratch_config` convert configurations alone, so that a model can be
rejected before its weights are read.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from .configuration_scratch import ScratchConfig
from .modeling_scratch import ScratchForCausalLM, ScratchForSequenceClassification

_SAME_NAMES = (
    "vocab_size",
    "tie_word_embeddings",
    "initializer_range",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "id2label",
    "label2id",
    "problem_type",
)
_LLAMA_NAMES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_parameters",
    "attention_bias",
    "attention_dropout",
)


@dataclass(frozen=True)
class Architecture:
    """A stock architecture: its names for our options, and the values of options that only one side has.

    Args:
        model_class, classifier_class: its language model, and its classifier of sequences.
        names: our option to theirs.
        fixed: our options that the architecture lacks, and the value that it implies.
        known: their options that we lack, and the values for which the network is ours.
        activation: their option that names the activation of the MLP.
        activations: our `mlp_type` to its values. They are names of one function; the first one is written.
        ignored: pattern of tensors in a checkpoint that are computed, not learned.
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    classifier_class: type[PreTrainedModel]
    names: dict[str, str]
    fixed: dict[str, Any]
    known: dict[str, tuple]
    activation: str
    activations: dict[str, tuple[str, ...]]
    ignored: re.Pattern


# `zero_init_projections` is in none of the tables: it affects only the initial weights.
_LLAMA_FIXED = {
    "norm_type": "rms",
    "position_type": "rope",
    "final_logit_softcapping": None,
    "embedding_shortcut": False,
}
_LLAMA_ACTIVATIONS = {"swiglu": ("silu", "swish")}
_INVERSE_FREQUENCIES = re.compile(r"rotary_emb\.inv_freq$")

ARCHITECTURES = {
    "llama": Architecture(
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        {name: name for name in (*_SAME_NAMES, *_LLAMA_NAMES, "mlp_bias")} | {"norm_eps": "rms_norm_eps"},
        _LLAMA_FIXED | {"qk_norm": False},
        {},
        "hidden_act",
        _LLAMA_ACTIVATIONS,
        _INVERSE_FREQUENCIES,
    ),
    "qwen3": Architecture(
        Qwen3Config,
        Qwen3ForCausalLM,
        Qwen3ForSequenceClassification,
        {name: name for name in (*_SAME_NAMES, *_LLAMA_NAMES, "sliding_window", "layer_types")}
        | {"norm_eps": "rms_norm_eps"},
        _LLAMA_FIXED | {"qk_norm": True, "mlp_bias": False},
        {},
        "hidden_act",
        _LLAMA_ACTIVATIONS,
        _INVERSE_FREQUENCIES,
    ),
    "gpt2": Architecture(
        GPT2Config,
        GPT2LMHeadModel,
        GPT2ForSequenceClassification,
        {name: name for name in _SAME_NAMES}
        | {
            "hidden_size": "n_embd",
            "intermediate_size": "n_inner",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "norm_eps": "layer_norm_epsilon",
            "attention_dropout": "attn_pdrop",
            "hidden_dropout": "resid_pdrop",
        },
        {
            "norm_type": "layer",
            "position_type": "learned",
            "qk_norm": False,
            "attention_bias": True,
            "mlp_bias": True,
            "final_logit_softcapping": None,
            "embedding_shortcut": False,
        },
        {
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "reorder_and_upcast_attn": (False,),
            "add_cross_attention": (False,),
        },
        "activation_function",
        {"gelu": ("gelu_new", "gelu_pytorch_tanh"), "gelu_exact": ("gelu",)},
        re.compile(r"\.attn\.(masked_)?bias$"),  # the causal mask, which old checkpoints carry
    ),
}

# Our names and GPT-2's. GPT-2 stores each matrix as (in, out), and query, key and value as one.
_GPT2_TENSORS = (
    ("model.embed_tokens.", "transformer.wte."),
    ("model.embed_positions.", "transformer.wpe."),
    ("model.norm.", "transformer.ln_f."),
    ("model.layers.", "transformer.h."),
    (".input_layernorm.", ".ln_1."),
    (".post_attention_layernorm.", ".ln_2."),
    (".self_attn.o_proj.", ".attn.c_proj."),
    (".mlp.up_proj.", ".mlp.c_fc."),
    (".mlp.down_proj.", ".mlp.c_proj."),
)
_QUERY_KEY_VALUE = (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj.")
_JOINED = ".attn.c_attn."


def stock_config(config: ScratchConfig, to: str) -> PreTrainedConfig:
    """The configuration of the same network as a stock class.

    Args:
        to: `llama`, `qwen3` or `gpt2`.

    Raises:
        ValueError: the network is not of that architecture. Names every option that differs, with its value.
    """
    _classes(_class_name(config), to)
    differences = _differences(config, to)
    if differences:
        fitting = [f"; it is a {name}" for name in ARCHITECTURES if name != to and not _differences(config, name)]
        raise ValueError(f"this model is not a {to}: {', '.join(differences)}{''.join(fitting)}")
    architecture = ARCHITECTURES[to]
    options = {theirs: copy.deepcopy(getattr(config, ours)) for ours, theirs in architecture.names.items()}
    options[architecture.activation] = architecture.activations[config.mlp_type][0]
    if to == "qwen3":
        options["use_sliding_window"] = config.sliding_window is not None
    if to == "gpt2":
        options["embd_pdrop"] = config.hidden_dropout
        options["n_ctx"] = config.max_position_embeddings  # for converters written for the first GPT-2
    return architecture.config_class(**options)


def _differences(config: ScratchConfig, to: str) -> list[str]:
    """The options in which a configuration differs from an architecture, with both values."""
    found = [
        f"{option} is {getattr(config, option)!r} ({to} has {'none' if value is None else repr(value)})"
        for option, value in ARCHITECTURES[to].fixed.items()
        if getattr(config, option) != value
    ]
    activations = ARCHITECTURES[to].activations
    if config.mlp_type not in activations:
        found.append(f"mlp_type is {config.mlp_type!r} ({to} has {' or '.join(map(repr, activations))})")
    if to != "gpt2" and config.hidden_dropout:
        found.append(
            f"hidden_dropout is {config.hidden_dropout} ({to} has none; it acts in training only, so set it to 0)"
        )
    if to != "qwen3" and "sliding_attention" in config.layer_types:
        found.append(f"sliding_window is {config.sliding_window} ({to} attends to the whole sequence)")
    width = config.num_attention_heads * config.head_dim
    if to == "gpt2" and width != config.hidden_size:
        found.append(f"head_dim is {config.head_dim} ({to} has hidden_size / num_attention_heads)")
    if to == "gpt2" and config.num_key_value_heads != config.num_attention_heads:
        found.append(f"num_key_value_heads is {config.num_key_value_heads} ({to} has {config.num_attention_heads})")
    if to == "llama" and config.hidden_size % config.num_attention_heads:
        found.append(f"hidden_size is {config.hidden_size} ({to} has a multiple of num_attention_heads)")
    return found


def nearest_architecture(config: ScratchConfig) -> str:
    """The stock architecture that differs in the fewest options, in none if the network is of that architecture."""
    return min(ARCHITECTURES, key=lambda name: len(_differences(config, name)))


def scratch_config(config: PreTrainedConfig) -> ScratchConfig:
    """Our configuration of the network that a stock configuration describes.

    Raises:
        ValueError: another architecture, or an option without an equivalent here, with its value.
        StrictDataclassError: a value that `ScratchConfig` rejects.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ValueError(f"model_type is '{kind}'; only {', '.join(ARCHITECTURES)} can be converted")
    _classes(_class_name(config), kind)
    architecture = ARCHITECTURES[kind]
    for option, values in architecture.known.items():
        if getattr(config, option) not in values:
            raise ValueError(f"{option} is {getattr(config, option)!r}; scratch only has {values[0]!r}")
    activation, kinds = getattr(config, architecture.activation), architecture.activations
    mlp_type = next((ours for ours, theirs in kinds.items() if activation in theirs), None)
    if mlp_type is None:
        only = " and ".join(repr(theirs[0]) for theirs in kinds.values())
        raise ValueError(f"{architecture.activation} is {activation!r}; scratch only has {only}")
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError("quantization_config: the weights are quantized; convert the unquantized checkpoint")
    if kind == "gpt2" and config.embd_pdrop != config.resid_pdrop:
        raise ValueError(
            f"embd_pdrop is {config.embd_pdrop} and resid_pdrop {config.resid_pdrop}; "
            "scratch has one hidden_dropout for both"
        )
    fixed = {option: value for option, value in architecture.fixed.items() if option not in architecture.names}
    options = {ours: copy.deepcopy(getattr(config, theirs)) for ours, theirs in architecture.names.items()}
    options |= fixed | {"mlp_type": mlp_type}
    if kind == "gpt2" and config.n_inner is None:
        options["intermediate_size"] = 4 * config.n_embd
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if isinstance(options[name], int) and options[name] < 0:  # how older checkpoints write that there is none
            options[name] = None
    return ScratchConfig(**options)


def _class_name(config: PreTrainedConfig) -> str:
    return (config.architectures or [""])[0]


def _classes(name: str, kind: str) -> tuple[type, type]:
    """Our class of a model, and that of the stock architecture `kind`.

    Args:
        name: of the model's present class.

    Raises:
        ValueError: it is neither a language model nor a classifier of sequences.
    """
    stock = ARCHITECTURES[kind]
    if name.endswith("ForSequenceClassification"):
        return ScratchForSequenceClassification, stock.classifier_class
    if name.endswith(("ForTokenClassification", "ForQuestionAnswering")):
        raise ValueError(f"it is a {name}; only language models and sequence classifiers can be converted")
    return ScratchForCausalLM, stock.model_class


def to_stock(model: ScratchForCausalLM | ScratchForSequenceClassification, to: str) -> PreTrainedModel:
    """The same network as a stock class, such as `LlamaForCausalLM` or `Qwen3ForSequenceClassification`, in its dtype.

    Tensors that need no change share their memory with `model`.

    Args:
        to: `llama`, `qwen3` or `gpt2`.

    Raises:
        ValueError: the network is not of that architecture. Names every option that differs, with its value.
    """
    config = stock_config(model.config, to)
    weights = model.state_dict()
    if to == "gpt2":
        weights = _to_gpt2(weights)
    _, stock_class = _classes(type(model).__name__, to)
    _check(weights, config, stock_class)
    stock = _assemble(stock_class, config, weights)
    if model.can_generate():
        stock.generation_config = copy.deepcopy(model.generation_config)
    return stock


def from_stock(
    config: PreTrainedConfig, weights: Mapping[str, torch.Tensor]
) -> ScratchForCausalLM | ScratchForSequenceClassification:
    """Our model of a stock configuration and checkpoint, in the checkpoint's dtype (the widest, if it has several).

    Tensors that need no change share their memory with `weights`.

    Args:
        config: a classifier's says so in `architectures`.
        weights: as in the checkpoint's files, or as `state_dict()` of the stock model gives them.

    Raises:
        ValueError: an option without an equivalent here, or a tensor that is missing, unexpected, of another shape, or
            not of floating point, by its name in the checkpoint.
    """
    ours = scratch_config(config)
    our_class, stock_class = _classes(_class_name(config), config.model_type)
    ignored, prefix = ARCHITECTURES[config.model_type].ignored, stock_class.base_model_prefix + "."
    weights = {name: tensor for name, tensor in weights.items() if not ignored.search(name)}
    if not any(name.startswith(prefix) for name in weights):  # saved without its head, as the first GPT-2 was
        weights = {name if name.startswith("lm_head.") else prefix + name: weights[name] for name in weights}
    _check(weights, config, stock_class)
    if config.model_type == "gpt2":
        weights = _from_gpt2(weights)
    return _assemble(our_class, ours, weights)


def _check(weights: dict[str, torch.Tensor], config: PreTrainedConfig, model_class: type[PreTrainedModel]) -> None:
    """Check that the tensors are exactly those of a stock model, in name and shape.

    Raises:
        ValueError: names the first tensor that is missing, unexpected or of another shape or kind.
    """
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in model_class(config).state_dict().items()}
    embedding = f"{model_class.base_model_prefix}.{'wte' if config.model_type == 'gpt2' else 'embed_tokens'}.weight"
    if config.tie_word_embeddings and "lm_head.weight" in expected:
        # Files hold a tied matrix once; older files hold it twice.
        head = weights.get("lm_head.weight")
        if head is not None and embedding in weights and not torch.equal(head, weights[embedding]):
            raise ValueError(f"tie_word_embeddings is True, but lm_head.weight is not {embedding}")
        if head is None:
            del expected["lm_head.weight"]
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing:
        raise ValueError(f"{missing[0]} is missing{_and_others(missing)}")
    if unexpected:
        raise ValueError(f"{unexpected[0]} is not a tensor of a {config.model_type}{_and_others(unexpected)}")
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(weights[name].shape)}, not {shape}")
        if not weights[name].is_floating_point():
            raise ValueError(f"{name} is {weights[name].dtype}, not floating point")


def _and_others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _assemble(model_class: type, config: PreTrainedConfig, weights: dict[str, torch.Tensor]) -> Any:
    """A model with exactly these weights, in the widest of their dtypes."""
    dtype = torch.float16 if all(tensor.dtype == torch.float16 for tensor in weights.values()) else torch.bfloat16
    for tensor in weights.values():
        dtype = torch.promote_types(dtype, tensor.dtype)
    model, report = model_class.from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    problems = [name for names in report.values() for name in names]
    if problems:
        raise ValueError(f"{model_class.__name__} rejected {problems[0]}{_and_others(problems)}")
    model.config.name_or_path = ""  # it was not loaded from a folder
    return model


def _to_gpt2(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if "_proj.weight" in name:
            tensor = tensor.T.contiguous()  # (in, out)
        if _QUERY_KEY_VALUE[0] in name:
            parts = [weights[name.replace(_QUERY_KEY_VALUE[0], part)] for part in _QUERY_KEY_VALUE]
            joined = torch.cat(
                [part.T if part.ndim == 2 else part for part in parts], dim=-1
            )  # (in, 3 * out) or (3 * out)
            renamed[name.replace("model.layers.", "transformer.h.").replace(_QUERY_KEY_VALUE[0], _JOINED)] = joined
        elif not any(part in name for part in _QUERY_KEY_VALUE):
            for ours, theirs in _GPT2_TENSORS:
                name = name.replace(ours, theirs)
            renamed[name] = tensor
    return renamed


def _from_gpt2(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        for ours, theirs in _GPT2_TENSORS:
            name = name.replace(theirs, ours)
        parts, names = [tensor], [name]
        if _JOINED in name:
            parts = tensor.chunk(3, dim=-1)
            names = [name.replace(_JOINED, part) for part in _QUERY_KEY_VALUE]
        for name, part in zip(names, parts):
            renamed[name] = part.T.contiguous() if "_proj.weight" in name else part.contiguous()
    return renamed
