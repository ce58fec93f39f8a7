"""Attention written out, which replaces a model's own for a while, so that what it computes can be seen or changed.

It works for every model whose attention goes through transformers' `AttentionInterface`. Nothing is left behind: one
function is registered for the life of the process, and the configuration names it only inside a `with` block.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from training.common.errors import UserError

NAME = "scratch_written_out"
MOST_ERROR = {8: 1e-4, 4: 1e-3, 2: 0.05, 1: 0.1}  # of logits, relative, by bytes of a weight
# An attention function as transformers calls it: (module, query, key, value, mask, **options) -> (output, weights).
AttentionFunction = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]


@dataclass(frozen=True)
class Attention:
    """Attention of one layer in one forward pass.

    Attributes:
        layer: from 0, in the order in which the layers run.
        module: the attention module.
        query: (batch, heads, seq, head_dim), with all that the model does to it before the dot product.
        key, value: (batch, kv_heads, seq, head_dim). Adjacent heads share keys.
        probabilities: (batch, heads, seq, seq) fp32, query by key.
        scale: factor of the dot products.
    """

    layer: int
    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    probabilities: torch.Tensor
    scale: float


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model's attention, the same in every layer."""

    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    scale: float


def written_out(
    module: nn.Module,
    query: torch.Tensor,  # (batch, heads, seq, head_dim)
    key: torch.Tensor,  # (batch, kv_heads, kv_seq, head_dim)
    value: torch.Tensor,  # (batch, kv_heads, kv_seq, head_dim)
    attention_mask: torch.Tensor | None,  # (batch, 1, seq, kv_seq), added to the scores
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in fp32: softmax(Q K^T * scaling + mask) V, without dropout. An attention function of transformers.

    Args:
        softcap: scores are kept between plus and minus this value, as in Gemma 2.
        s_aux: scores of a sink, (heads,), which takes probability but has no value, as in gpt-oss.

    Returns:
        Output, (batch, seq, heads, head_dim), in the query's dtype, and probabilities, (batch, heads, seq, kv_seq).
    """
    groups = query.shape[1] // key.shape[1]
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        keys, values = (x.to(dtype).repeat_interleave(groups, dim=1) for x in (key, value))
        scores = query.to(dtype) @ keys.transpose(2, 3) * scale_of(query, scaling)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if attention_mask is not None:
            scores = scores + attention_mask[..., : keys.shape[2]]
        if s_aux is not None:
            sinks = s_aux.to(dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat((scores, sinks), dim=-1)
        probabilities = scores.softmax(dim=-1)[..., : keys.shape[2]]
        output = probabilities @ values  # (batch, heads, seq, head_dim)
    return output.transpose(1, 2).to(query.dtype).contiguous(), probabilities


def scale_of(query: torch.Tensor, scaling: float | None) -> float:
    """The factor of the dot products: by default 1 / sqrt(head_dim)."""
    return query.shape[-1] ** -0.5 if scaling is None else scaling


class _Replacement:
    """The function registered with transformers, which passes each call to the one of the `with` block."""

    function: AttentionFunction = staticmethod(written_out)

    def __call__(self, *arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.function(*arguments, **options)


_replacement = _Replacement()
ALL_ATTENTION_FUNCTIONS.register(NAME, _replacement)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


@contextmanager
def replaced_attention(model: PreTrainedModel, function: AttentionFunction) -> Iterator[None]:
    """Compute the attention of all layers with another function inside a `with` block.

    The model is in evaluation mode there. Compiled layers run without their compiled code, which stays as it is.

    Args:
        function: takes what transformers passes to attention functions, the mask in the form of `eager`; see
            `written_out`.
    """
    found = [getattr(module, "config", None) for module in model.modules()]
    # Each once, those of parents before those of their parts.
    configs = list({id(config): config for config in found if isinstance(config, PreTrainedConfig)}.values())
    before = [(config, config._attn_implementation) for config in configs]
    training = [module for module in model.modules() if module.training]
    own, _replacement.function = _replacement.function, function
    try:
        for config in configs:
            config._attn_implementation = NAME
        model.eval()
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _replacement.function = own
        for config, implementation in before:
            config._attn_implementation = implementation
        for module in training:
            module.training = True


@contextmanager
def seen_attention(model: PreTrainedModel, see: Callable[[Attention], None]) -> Iterator[None]:
    """Pass the attention of every layer to a function, inside a `with` block with one forward pass of the model."""
    layers = 0

    def function(module, query, key, value, attention_mask, **options):
        nonlocal layers
        output, weights = written_out(module, query, key, value, attention_mask, **options)
        scale = scale_of(query, options.get("scaling"))
        see(Attention(layers, module, query, key, value, weights, scale))
        layers += 1
        return output, weights

    with replaced_attention(model, function):
        yield


def attention_modules(model: PreTrainedModel) -> list[nn.Module]:
    """The attention of each layer, (layers,)."""
    return [attention.module for attention in _of_two_tokens(model)]


def attention_sizes(model: PreTrainedModel) -> Sizes:
    """The sizes of a model's attention, from a forward pass over two tokens.

    Raises:
        UserError: not every layer has attention that transformers can replace, or the layers differ in size.
    """
    name, layers = type(model).__name__, model.config.get_text_config().num_hidden_layers
    seen = _of_two_tokens(model)
    if len(seen) != layers:
        raise UserError(
            f"'model': {len(seen)} of the {layers} layers of {name} have attention that can be recorded; choose a "
            "model with transformers' attention interface in every layer"
        )
    sizes = {(layer.query.shape[1], layer.key.shape[1], layer.query.shape[3], float(layer.scale)) for layer in seen}
    if len(sizes) > 1:
        raise UserError(f"'model': the layers of {name} differ in their heads, which cannot be drawn in one grid")
    return Sizes(layers, *sizes.pop())


@torch.no_grad()
def _of_two_tokens(model: PreTrainedModel) -> list[Attention]:
    """The attention of every layer in a forward pass over two tokens."""
    seen: list[Attention] = []
    with seen_attention(model, seen.append):
        model(torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    return seen


@torch.no_grad()
def check_written_out(model: PreTrainedModel, input_ids: torch.LongTensor) -> None:
    """Check that a model computes the same with `written_out` as with its own attention, up to rounding.

    Its attention may have parts that transformers passes under names which are not known here.

    Args:
        input_ids: (batch, seq).

    Raises:
        UserError: the logits differ.
    """
    input_ids = input_ids.to(model.device)
    own = model(input_ids, use_cache=False).logits.float()
    with replaced_attention(model, written_out):
        other = model(input_ids, use_cache=False).logits.float()
    error = float((other - own).norm() / own.norm())
    if not error < MOST_ERROR[model.dtype.itemsize]:
        raise UserError(
            f"'model': the attention of {type(model).__name__} has parts that cannot be recorded (without them, its "
            f"logits differ by {error:.2%}); choose another model"
        )
