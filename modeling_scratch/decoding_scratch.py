"""The decode loop's fast path: one new token a sequence and step, over plain tensors instead of modules.

At one token a step a small model spends its time not in arithmetic but around it: in calls of modules, in projections
of the same input one by one, in a cache that is copied to grow by one token. Here is the same forward pass without all
that. `generate` takes it by itself for greedy search and sampling, with logits equal to the ordinary ones up to
rounding; whatever it does not cover goes the ordinary way.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

# Prepared weights are a copy that lives as long as a text is generated. Of larger ones (bytes, all together), reading
# them is what takes the time, and preparing gains little.
LARGEST_COPY = 2**28
GROWTH = 256  # tokens by which the room for keys and values grows


class Projection:
    """Linear maps of one input, as a single product where they may be copied: (batch, in) -> each (batch, out)"""

    def __init__(self, *linears: nn.Linear, copy: bool):
        self.sizes = [linear.out_features for linear in linears]
        self.maps = [(linear.weight, linear.bias) for linear in linears]
        self.packed = False
        if copy:
            weights, biases = zip(*self.maps)
            weight, bias = torch.cat(weights), None if biases[0] is None else torch.cat(biases)
            self.packed = can_pack(weight)
            self.maps = [(torch.ops.mkldnn._reorder_linear_weight(weight) if self.packed else weight, bias)]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.packed:
            ((weight, bias),) = self.maps
            outputs = [torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")]
        else:
            outputs = [functional.linear(x, weight, bias) for weight, bias in self.maps]
        return tuple(outputs) if len(outputs) == len(self.sizes) else outputs[0].split_with_sizes(self.sizes, dim=-1)


def can_pack(weight: torch.Tensor) -> bool:
    """Whether oneDNN takes the weight in blocks as its bf16 kernel reads them: for few rows, twice as fast."""
    on_processor = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_processor and weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def norm_function(norm: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The norm of (batch, size) in few kernels. RMSNorm has none of its own on a processor, but LayerNorm has, and of x
    and -x side by side, whose mean is zero, LayerNorm is RMSNorm."""
    if isinstance(norm, nn.LayerNorm) or norm.weight.device.type != "cpu":
        return norm.forward
    size = norm.weight.shape[0]
    weight = torch.cat((norm.weight, norm.weight))
    return lambda x: functional.layer_norm(torch.cat((x, -x), dim=-1), (2 * size,), weight, eps=norm.eps)[..., :size]


def rotate(x: torch.Tensor, cos: torch.Tensor, signed_sin: torch.Tensor) -> torch.Tensor:
    """`apply_rotary_pos_emb` in three operations: the sign that `rotate_half` changes is in the table."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), signed_sin)


def with_room(states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy of keys or values, (batch, kv_heads, seq, head_dim), with `GROWTH` free positions behind them."""
    batch, heads, seq, head_dim = states.shape
    room = states.new_empty(batch, heads, seq + GROWTH, head_dim, dtype=dtype)
    room[:, :, :seq] = states
    return room


class DecoderLayer:
    """A `ScratchDecoderLayer` over plain tensors."""

    def __init__(self, layer: nn.Module, copy: bool):
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim, self.scaling = attention.head_dim, attention.scaling
        self.grouped = attention.num_key_value_groups > 1
        self.input_layernorm = norm_function(layer.input_layernorm)
        self.post_attention_layernorm = norm_function(layer.post_attention_layernorm)
        self.qkv_proj = Projection(attention.q_proj, attention.k_proj, attention.v_proj, copy=copy)
        self.qk_norm = attention.config.qk_norm
        if self.qk_norm:
            self.q_norm, self.k_norm = norm_function(attention.q_norm), norm_function(attention.k_norm)
        self.o_proj = Projection(attention.o_proj, copy=copy)
        inner = [mlp.up_proj, mlp.gate_proj] if mlp.mlp_type == "swiglu" else [mlp.up_proj]
        self.inner_proj = Projection(*inner, copy=copy)
        self.down_proj = Projection(mlp.down_proj, copy=copy)
        self.activation = mlp.activation

    def adopt(self, cached: DynamicLayer) -> None:
        """Take over the keys and values so far."""
        self.cached = cached
        # On a processor, attention of a single query is several times as fast in fp32 as in bf16.
        self.dtype = torch.float if cached.keys.device.type == "cpu" else cached.keys.dtype
        self.keys, self.values = with_room(cached.keys, self.dtype), with_room(cached.values, self.dtype)

    def hand_back(self, dtype: torch.dtype) -> None:
        """Leave in the cache what the ordinary forward pass would have left there."""
        self.cached.keys, self.cached.values = self.cached.keys.to(dtype), self.cached.values.to(dtype)

    def step(
        self,
        hidden_states: torch.Tensor,  # (batch, hidden)
        rotation: tuple[torch.Tensor, torch.Tensor] | None,  # each (batch, 1, head_dim)
        mask: torch.Tensor | None,  # (batch, 1, 1, position + 1): True where visible
        position: int,  # in the cache
    ) -> torch.Tensor:
        per_head = (hidden_states.shape[0], -1, self.head_dim)
        query, key, value = self.qkv_proj(self.input_layernorm(hidden_states))
        query, key, value = query.view(per_head), key.view(per_head), value.view(per_head)
        if self.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = query.to(self.dtype), key.to(self.dtype)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)

        if position == self.keys.shape[2]:
            self.keys, self.values = with_room(self.keys, self.dtype), with_room(self.values, self.dtype)
        self.keys[:, :, position], self.values[:, :, position] = key, value
        self.cached.keys, self.cached.values = self.keys[:, :, : position + 1], self.values[:, :, : position + 1]
        attended = functional.scaled_dot_product_attention(
            query.unsqueeze(2), self.cached.keys, self.cached.values, mask, scale=self.scaling, enable_gqa=self.grouped
        )  # (batch, heads, 1, head_dim)
        (attended,) = self.o_proj(attended.flatten(1).to(hidden_states.dtype))
        hidden_states = hidden_states + attended
        (expanded,) = self.down_proj(self.activation(*self.inner_proj(self.post_attention_layernorm(hidden_states))))
        return hidden_states + expanded


class Decoder:
    """The forward pass of a `ScratchForCausalLM` for the new tokens of one call of `generate`."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        layers = model.model.layers[: model.config.num_hidden_layers]
        copy = sum(weight.nbytes for weight in model.parameters()) <= LARGEST_COPY
        self.layers = [DecoderLayer(layer, copy) for layer in layers]
        self.lm_head = Projection(model.lm_head, copy=copy)
        self.mixtures: list[tuple[float, float]] | None = None
        if model.config.embedding_shortcut:
            self.mixtures = list(zip(model.model.residual_scale.tolist(), model.model.embedding_scale.tolist()))
        self.cache: DynamicCache | None = None

    @torch.no_grad()
    def step(
        self,
        input_ids: torch.LongTensor | None,  # (batch, 1)
        attention_mask: torch.Tensor | None,  # (batch, kv_seq), 0 for padding
        position_ids: torch.LongTensor | None,  # (batch, 1)
        cache: Cache | None,
        others: dict[str, Any],
    ) -> CausalLMOutputWithPast | None:
        """Logits of the next token, or None for a call that this path does not cover.

        Args:
            others: all other arguments of the call; any that is set is one that only the ordinary path knows.
        """
        covered = (
            input_ids is not None
            and input_ids.shape[1] == 1
            and position_ids is not None
            and type(cache) is DynamicCache
            and all(type(layer) is DynamicLayer and layer.is_initialized for layer in cache.layers)
            and (attention_mask is None or attention_mask.ndim == 2)
            and all(value is None or value is False for value in others.values())
            and not torch.is_autocast_enabled(input_ids.device.type)
        )
        if not covered or cache is not self.cache:
            self.release()
        if not covered:
            return None
        if self.cache is None:
            self._adopt(cache, attention_mask)

        backbone, position = self.model.model, cache.get_seq_length()
        embeddings = backbone.embed(backbone.embed_tokens(input_ids), position_ids)[:, 0]  # (batch, hidden)
        rotation = None
        if backbone.config.position_type == "rope":
            cos, sin = backbone.rotary_emb(embeddings.to(self.layers[0].dtype), position_ids)
            rotation = cos, sin * self.signs
        mask = attention_mask[:, None, None].bool() if self.padded else None
        hidden_states = embeddings
        for index, layer in enumerate(self.layers):
            if self.mixtures is not None:
                residual_scale, embedding_scale = self.mixtures[index]
                hidden_states = torch.add(hidden_states * residual_scale, embeddings, alpha=embedding_scale)
            hidden_states = layer.step(hidden_states, rotation, mask, position)
        (logits,) = self.lm_head(backbone.norm(hidden_states))
        return CausalLMOutputWithPast(logits=self.model.softcap(logits).unsqueeze(1), past_key_values=cache)

    def _adopt(self, cache: DynamicCache, attention_mask: torch.Tensor | None) -> None:
        self.cache, self.cache_dtype = cache, cache.layers[0].keys.dtype
        for layer, cached in zip(self.layers, cache.layers, strict=True):
            layer.adopt(cached)
        self.padded = attention_mask is not None and not attention_mask.all()  # what is generated is never padding
        half = self.layers[0].head_dim // 2
        self.signs = self.layers[0].keys.new_tensor([-1.0] * half + [1.0] * half)

    def release(self) -> None:
        """Give the cache back as the ordinary forward pass would have left it."""
        if self.cache is not None:
            for layer in self.layers:
                layer.hand_back(self.cache_dtype)
            self.cache = None


# Of the call of `generate` in this thread: a server may run several at a time over one model.
_decoder: ContextVar[Decoder | None] = ContextVar("decoder", default=None)


@contextmanager
def fast_decoding(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model's forward pass finds a decoder for single new tokens."""
    if not covers(model):
        yield
        return
    decoder = Decoder(model)
    token = _decoder.set(decoder)
    try:
        yield
    finally:
        _decoder.reset(token)
        decoder.release()


def active_decoder(model: PreTrainedModel) -> Decoder | None:
    """The decoder of the call of `generate` that we are in, if it has one."""
    if torch.compiler.is_compiling():
        return None
    decoder = _decoder.get()
    return decoder if decoder is not None and decoder.model is model else None


def covers(model: PreTrainedModel) -> bool:
    """Whether the model is what this file spells out: its own modules, unhooked, with full attention by sdpa."""
    plain = all(
        not (module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook"))
        and (type(module) is nn.Linear or not hasattr(module, "in_features"))
        and all(type(weight) is nn.Parameter for weight in module._parameters.values() if weight is not None)
        for module in model.modules()
    )
    full = set(model.config.layer_types) == {"full_attention"}
    return plain and full and not model.training and model.config._attn_implementation == "sdpa"
