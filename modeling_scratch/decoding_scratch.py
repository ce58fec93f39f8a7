"""The fast path of generation: one new token per sequence and step, over plain tensors instead of modules.

Nothing here is needed to understand the model. At one token a step, a small model spends its time on calls of modules,
on separate projections of one input, and on a cache that is copied to grow by one token. This file computes the same
forward pass without these costs. `generate` uses it automatically for greedy search and sampling; every other call
takes the ordinary forward pass. So does every step before which anything that it replaces was changed
(originals_scratch.py) or whose arguments it does not cover (`Decoder.step`).

Tolerance: logits, keys and values equal those of the ordinary pass up to rounding. tests/modeling_scratch/test_decoding
holds them within 2e-5 + 1e-4 of the value in fp32, and in bf16 and fp16 at an error against fp32 of at most 1.5 times
the ordinary pass's own. Its speed was measured on CPUs only; on a GPU it is correct, but nothing is claimed.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .originals_scratch import Originals, Replaced

# Joined and packed weights are a copy that lives during one call of `generate`. Models above this size (bytes of all
# parameters) spend their time reading weights, so a copy gains little.
LARGEST_COPY = 2**28
GROWTH = 256  # free positions allocated at a time for keys and values


class Projection:
    """Linear layers that share an input, as one matrix product if they may be copied: (batch, in) -> (batch, out) each.

    Packed weights go through `torch.ops.mkldnn._reorder_linear_weight`, `_linear_pointwise` and
    `_is_mkldnn_bf16_supported`. These are private operators of PyTorch and may change with any version; pyproject.toml
    bounds the versions for which the tests hold.

    Args:
        copy: join the weights, and pack them where `can_pack` holds.
    """

    def __init__(self, *linears: nn.Linear, copy: bool):
        self.sizes = [linear.weight.shape[0] for linear in linears]
        self.maps = [(linear.weight, linear.bias) for linear in linears]
        self.packed = False
        if copy and len({linear.bias is None for linear in linears}) == 1:
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
    """Whether oneDNN can store the weight in the blocks that its bf16 kernel reads: twice as fast for few rows."""
    on_cpu = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_cpu and weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def norm_function(norm: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The norm over the last dimension, in few kernels: (..., size) -> (..., size).

    On a CPU, LayerNorm has a fused kernel and RMSNorm has none. The mean of x and -x side by side is zero, so LayerNorm
    of both is RMSNorm of each.
    """
    if isinstance(norm, nn.LayerNorm) or norm.weight.device.type != "cpu":
        return norm.forward
    size = norm.weight.shape[0]
    weight = torch.cat((norm.weight, norm.weight))
    return lambda x: torch.layer_norm(torch.cat((x, -x), dim=-1), (2 * size,), weight, None, norm.eps)[..., :size]


def rotate(x: torch.Tensor, cos: torch.Tensor, signed_sin: torch.Tensor) -> torch.Tensor:
    """`apply_rotary_pos_emb` in three operations: the table of sines has the sign that `rotate_half` changes.

    Args:
        x: (batch, heads, head_dim).
        cos, signed_sin: (batch, 1, head_dim).
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), signed_sin)


def allocate_cache(states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy of keys or values, (batch, kv_heads, seq, head_dim), followed by `GROWTH` free positions."""
    batch, heads, seq, head_dim = states.shape
    allocated = states.new_empty(batch, heads, seq + GROWTH, head_dim, dtype=dtype)
    allocated[:, :, :seq] = states
    return allocated


class DecoderLayer:
    """A `ScratchDecoderLayer` over plain tensors."""

    def __init__(self, layer: nn.Module, copy: bool):
        self.attention, self.mlp = attention, mlp = layer.self_attn, layer.mlp
        self.head_dim, self.grouped = attention.head_dim, attention.num_key_value_groups > 1
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

    def take_over_cache(self, cached: DynamicLayer) -> None:
        """Copy the keys and values so far into tensors with free positions."""
        self.cached, self.visible = cached, (cached.keys, cached.values)
        self.dropped: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # rows, their keys and values
        self.dtype = cached.keys.dtype
        if cached.keys.device.type == "cpu":  # attention of a single query is several times as fast in fp32 as in bf16
            self.dtype = torch.promote_types(self.dtype, torch.float)
        self.keys, self.values = allocate_cache(cached.keys, self.dtype), allocate_cache(cached.values, self.dtype)

    def continues(self, cached: DynamicLayer) -> bool:
        """Whether the cache still holds the keys and values that the step before left there."""
        same = cached is self.cached and cached.keys is self.visible[0] and cached.values is self.visible[1]
        return same and is_extended_as_usual(cached)

    def drop(self, rows: torch.Tensor, finished: torch.Tensor, position: int) -> None:
        """Set aside the keys and values of finished sequences, so that steps no longer read them.

        Args:
            rows: (sequences,) the rows of the batch that were left so far.
            finished: (sequences,) bool.
            position: number of positions in the cache.
        """
        ended, left = finished.nonzero().squeeze(1), (~finished).nonzero().squeeze(1)
        keys, values = self.keys[:, :, :position], self.values[:, :, :position]
        self.dropped.append((rows[ended], keys.index_select(0, ended), values.index_select(0, ended)))
        self.keys = allocate_cache(keys.index_select(0, left), self.dtype)
        self.values = allocate_cache(values.index_select(0, left), self.dtype)

    def restore_cache(self, dtype: torch.dtype, rows: torch.Tensor) -> None:
        """Give the cache all rows again, in the dtype that the ordinary forward pass uses.

        Args:
            rows: the rows of the batch that are left. Those that were dropped get zeros after their last token.
        """
        if not self.cached.is_initialized:  # after a reset
            return
        keys, values = self.cached.keys, self.cached.values
        if self.dropped:
            parts = [*self.dropped, (rows, keys, values)]
            batch = sum(len(part) for part, _, _ in parts)
            keys, values = (states.new_zeros(batch, *states.shape[1:]) for states in (keys, values))
            for part, its_keys, its_values in parts:
                keys[part, :, : its_keys.shape[2]], values[part, :, : its_values.shape[2]] = its_keys, its_values
        self.cached.keys, self.cached.values = keys.to(dtype), values.to(dtype)

    def step(
        self,
        hidden_states: torch.Tensor,  # (batch, hidden)
        rotation: tuple[torch.Tensor, torch.Tensor] | None,  # each (batch, 1, head_dim)
        mask: torch.Tensor | None,  # (batch, 1, 1, position + 1): True where visible
        position: int,  # in the cache
    ) -> torch.Tensor:  # (batch, hidden)
        per_head = (hidden_states.shape[0], -1, self.head_dim)
        query, key, value = self.qkv_proj(self.input_layernorm(hidden_states))
        query, key, value = query.view(per_head), key.view(per_head), value.view(per_head)
        if self.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        if rotation is not None:  # of both at once
            both = rotate(torch.cat((query, key), dim=1).to(self.dtype), *rotation)
            query, key = both.split_with_sizes((query.shape[1], key.shape[1]), dim=1)

        if position == self.keys.shape[2]:
            self.keys, self.values = allocate_cache(self.keys, self.dtype), allocate_cache(self.values, self.dtype)
        self.keys[:, :, position], self.values[:, :, position] = key, value
        self.visible = self.keys[:, :, : position + 1], self.values[:, :, : position + 1]
        self.cached.keys, self.cached.values = self.visible
        attended = functional.scaled_dot_product_attention(
            query.unsqueeze(2).to(self.dtype),
            *self.visible,
            mask,
            scale=self.attention.scaling,
            enable_gqa=self.grouped,
        )  # (batch, heads, 1, head_dim)
        (attended,) = self.o_proj(attended.flatten(1).to(hidden_states.dtype))
        hidden_states = hidden_states + attended
        inner = self.mlp.activation(*self.inner_proj(self.post_attention_layernorm(hidden_states)))
        (expanded,) = self.down_proj(inner)
        return hidden_states + expanded


class Decoder:
    """The forward pass of a `ScratchForCausalLM` for single new tokens, during one call of `generate`.

    Args:
        replaced: the modules whose work it does.
        ends: (tokens,) the tokens after which `generate` ignores a sequence, and so may this; None to compute all.
    """

    def __init__(self, model: PreTrainedModel, replaced: Replaced, ends: torch.Tensor | None):
        self.model, self.replaced, self.ends = model, replaced, ends
        layers = model.model.layers[: model.config.num_hidden_layers]
        copy = sum(weight.nbytes for weight in model.parameters()) <= LARGEST_COPY
        self.layers = [DecoderLayer(layer, copy) for layer in layers]
        self.norm = norm_function(model.model.norm)
        self.lm_head = Projection(model.lm_head, copy=copy)
        self.mixtures: list[tuple[float, float]] | None = None
        if model.config.embedding_shortcut:
            self.mixtures = list(zip(model.model.residual_scale.tolist(), model.model.embedding_scale.tolist()))
        self.cache: DynamicCache | None = None

    @torch.no_grad()
    def step(
        self,
        input_ids: torch.LongTensor | None = None,  # (batch, 1)
        attention_mask: torch.Tensor | None = None,  # (batch, kv_seq), 0 for padding
        position_ids: torch.LongTensor | None = None,  # (batch, 1)
        past_key_values: Cache | None = None,
        inputs_embeds: None = None,
        labels: None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast | None:
        """Logits of the next token, (batch, 1, vocab), or None for a call that this path does not support.

        The arguments are those of `ScratchForCausalLM.forward`. Any in `others` that is set needs the ordinary pass.
        """
        cache = past_key_values
        continued = self.continues(cache)
        covered = (
            self.replaced.are_in_place()
            and input_ids is not None
            and inputs_embeds is None
            and labels is None
            and position_ids is not None
            and isinstance(logits_to_keep, int)
            and all(value is None or value is False for value in others.values())
            and not torch.is_autocast_enabled(input_ids.device.type)
            and (continued or is_plain(cache, len(self.layers)))
            and input_ids.shape == (self.batch if continued else len(cache.layers[0].keys), 1)
            and (attention_mask is None or isinstance(attention_mask, torch.Tensor))
            and (attention_mask is None or attention_mask.shape == (len(input_ids), cache.get_seq_length() + 1))
        )
        if not (covered and continued):
            self.restore_cache()
        if not covered:
            return None
        if not continued:
            self.take_over_cache(cache)

        backbone, position = self.model.model, cache.get_seq_length()
        self.drop_finished(input_ids[:, 0], position)
        if len(self.rows) < self.batch:
            input_ids, position_ids = input_ids[self.rows], position_ids.expand(self.batch, -1)[self.rows]
            attention_mask = None if attention_mask is None else attention_mask[self.rows]
        inputs_embeds = backbone.embed(backbone.embed_tokens(input_ids), position_ids)  # (batch, 1, hidden)
        rotation = None
        if backbone.config.position_type == "rope":
            cos, sin = backbone.rotary_emb(inputs_embeds.to(self.layers[0].dtype), position_ids)
            rotation = cos, sin * self.signs
        padded = attention_mask is not None and not attention_mask.all()
        mask = attention_mask[:, None, None].bool() if padded else None
        hidden_states = embeddings = inputs_embeds[:, 0]  # (batch, hidden)
        for index, layer in enumerate(self.layers):
            if self.mixtures is not None:
                residual_scale, embedding_scale = self.mixtures[index]
                hidden_states = torch.add(hidden_states * residual_scale, embeddings, alpha=embedding_scale)
            hidden_states = layer.step(hidden_states, rotation, mask, position)
        (logits,) = self.lm_head(self.norm(hidden_states))
        logits = self.model.softcap(logits.unsqueeze(1))  # (rows, 1, vocab)
        if len(self.rows) < self.batch:
            logits = logits.new_zeros(self.batch, *logits.shape[1:]).index_copy(0, self.rows, logits)
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache)

    def drop_finished(self, tokens: torch.Tensor, position: int) -> None:
        """Leave out the sequences that have ended, once they are a quarter of those that are left.

        Args:
            tokens: (batch,) the newest token of each sequence.
            position: number of positions in the cache.
        """
        if self.ends is None:
            return
        self.finished |= torch.isin(tokens, self.ends)
        finished = self.finished[self.rows]
        if 0.25 <= finished.float().mean().item() < 1:
            for layer in self.layers:
                layer.drop(self.rows, finished, position)
            self.rows = self.rows[~finished]

    def continues(self, cache: Cache | None) -> bool:
        """Whether this is the cache of the step before, with nothing changed in it since."""
        return (
            cache is not None
            and cache is self.cache
            and is_extended_as_usual(cache)
            and len(cache.layers) == len(self.layers)
            and all(map(DecoderLayer.continues, self.layers, cache.layers))
        )

    def take_over_cache(self, cache: DynamicCache) -> None:
        """Continue from the keys and values of a cache."""
        keys = cache.layers[0].keys
        self.cache, self.cache_dtype, self.batch = cache, keys.dtype, len(keys)
        self.rows = torch.arange(self.batch, device=keys.device)  # of the batch that are computed
        self.finished = torch.zeros(self.batch, dtype=torch.bool, device=keys.device)
        for layer, cached in zip(self.layers, cache.layers, strict=True):
            layer.take_over_cache(cached)
        half = self.layers[0].head_dim // 2
        self.signs = self.layers[0].keys.new_tensor([-1.0] * half + [1.0] * half)

    def restore_cache(self) -> None:
        """Leave the cache as the ordinary forward pass would have."""
        if self.cache is not None:
            for layer in self.layers:
                layer.restore_cache(self.cache_dtype, self.rows)
            self.cache = None


# The decoder of the current call of `generate`, by thread: a server may run several calls at a time on one model.
_decoder: ContextVar[Decoder | None] = ContextVar("decoder", default=None)
_settings: ContextVar[GenerationConfig | None] = ContextVar("settings", default=None)  # of the same call


@contextmanager
def generation_settings(settings: GenerationConfig) -> Iterator[None]:
    """Let `fast_decoding` know the settings of a call of `generate`, inside this context."""
    token = _settings.set(settings)
    try:
        yield
    finally:
        _settings.reset(token)


def ends_of(settings: GenerationConfig | None, device: torch.device) -> torch.Tensor | None:
    """The tokens after which a sequence no longer matters; None if the caller sees its later logits, or on a GPU, which
    would have to wait for them at every step."""
    if settings is None or settings.eos_token_id is None or settings.return_dict_in_generate or device.type != "cpu":
        return None
    return torch.tensor(settings.eos_token_id).flatten()


@contextmanager
def fast_decoding(model: PreTrainedModel, originals: Originals) -> Iterator[None]:
    """Let the model's forward pass use a decoder for single new tokens, inside this context."""
    replaced = Replaced(model, originals)
    if not replaced.are_in_place() or not covers(model):
        yield
        return
    decoder = Decoder(model, replaced, ends_of(_settings.get(), model.device))
    token = _decoder.set(decoder)
    try:
        yield
    finally:
        _decoder.reset(token)
        decoder.restore_cache()


def fast_single_steps(forward: Callable[..., CausalLMOutputWithPast]) -> Callable[..., CausalLMOutputWithPast]:
    """Decorate a forward pass: inside `fast_decoding`, the decoder computes single new tokens in its place."""

    @functools.wraps(forward)
    def decoder_or_forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> CausalLMOutputWithPast:
        decoder = active_decoder(self)
        output = decoder.step(*args, **kwargs) if decoder is not None else None
        return forward(self, *args, **kwargs) if output is None else output

    return decoder_or_forward


def active_decoder(model: PreTrainedModel) -> Decoder | None:
    """The decoder of the current call of `generate` on this model, or None."""
    if torch.compiler.is_compiling():
        return None
    decoder = _decoder.get()
    return decoder if decoder is not None and decoder.model is model else None


def covers(model: PreTrainedModel) -> bool:
    """Whether the loop has the model's architecture: full attention in every layer, each with its own cache."""
    config, attentions = model.config, [layer.self_attn for layer in model.model.layers]
    return (
        config._attn_implementation in ("sdpa", "eager")
        and set(config.layer_types) == {"full_attention"}
        and not (config.output_attentions or config.output_hidden_states)
        and all(part.config is config for part in (model.model, *attentions))
        and [attention.layer_idx for attention in attentions] == list(range(len(attentions)))
    )


def is_plain(cache: Cache | None, layers: int) -> bool:
    """Whether a cache holds keys and values of the same tokens for each layer."""
    return (
        is_extended_as_usual(cache)
        and len(cache.layers) == layers
        and all(map(is_extended_as_usual, cache.layers))
        and all(layer.get_seq_length() == cache.get_seq_length() > 0 for layer in cache.layers)
    )


def is_extended_as_usual(part: Cache | DynamicLayer | None) -> bool:
    """Whether the library's own `update` appends to a cache or one layer of it, and nothing else happens then."""
    if type(part) not in (DynamicCache, DynamicLayer):
        return False
    own = vars(part)
    return "update" not in own and "get_mask_sizes" not in own and not own.get("offloading")
