"""A decoder-only transformer, top to bottom: norm, positions, attention, MLP, layer, model, heads.

Shapes in comments: `seq` is the number of new tokens, `kv_seq` the number of tokens attended to (cache included).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import GenericForSequenceClassification, GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_scratch import ScratchConfig
from .decoding_scratch import active_decoder, fast_decoding
from .loss_scratch import CausalLMLoss


class ScratchRMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension, in fp32. https://arxiv.org/abs/1910.07467"""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # Squares overflow fp16 and lose most of bf16's eight bits; rounding back before the gain is what Llama does.
        normed = nn.functional.rms_norm(hidden_states.float(), self.weight.shape, eps=self.eps)
        return self.weight.to(hidden_states.dtype) * normed.to(hidden_states.dtype)


def build_norm(config: ScratchConfig) -> nn.Module:
    if config.norm_type == "rms":
        return ScratchRMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)


class ScratchRotaryEmbedding(nn.Module):
    """Cosines and sines of the angles position * theta^(-2i / head_dim). https://arxiv.org/abs/2104.09864

    transformers builds models on the meta device and refills these buffers after loading, for a class whose name
    contains `RotaryEmbedding` and that has `original_inv_freq`: keep both names.
    """

    def __init__(self, config: ScratchConfig):
        super().__init__()
        self.config = config
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.rope_type = config.rope_parameters["rope_type"]
        compute = self.compute_default_rope_parameters
        if self.rope_type != "default":
            compute = ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, self.attention_scaling = compute(config)
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)
        self.original_inv_freq = nn.Buffer(inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: ScratchConfig, **kwargs) -> tuple[torch.Tensor, float]:
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        return config.rope_parameters["rope_theta"] ** -exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Angles in fp32: bf16 cannot tell position 257 from 258.
        angles = position_ids[..., None].float() * self.inv_freq.to(x.device, torch.float)  # (batch, seq, head_dim / 2)
        angles = torch.cat((angles, angles), dim=-1)  # (batch, seq, head_dim)
        return (angles.cos() * self.attention_scaling).to(x.dtype), (angles.sin() * self.attention_scaling).to(x.dtype)


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """Coordinate i is paired with i + head_dim / 2, as in every Hugging Face checkpoint (not with i + 1)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rotary_pos_emb(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    cos, sin = (table.unsqueeze(1).to(x.dtype) for table in (cos, sin))  # (batch, 1, seq, head_dim): same for all heads
    return x * cos + rotate_half(x) * sin


def sinusoidal_embedding(position_ids: torch.LongTensor, size: int) -> torch.Tensor:
    """Fixed waves of geometrically growing length. https://arxiv.org/abs/1706.03762, section 3.5"""
    frequencies = 10000 ** -(torch.arange(0, size, 2, device=position_ids.device).float() / size)
    angles = position_ids[..., None].float() * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)[..., :size]  # (batch, seq, size)


def residual_std(config: ScratchConfig) -> float:
    """Initial spread of a projection into the residual stream: the sum of two a layer is as large at any depth."""
    return 0.0 if config.zero_init_projections else config.initializer_range / (2 * config.num_hidden_layers) ** 0.5


def repeat_kv(x: torch.Tensor, groups: int) -> torch.Tensor:
    """(batch, kv_heads, seq, head_dim) -> (batch, kv_heads * groups, seq, head_dim), neighbours sharing a head."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,  # (batch, heads, seq, head_dim)
    key: torch.Tensor,  # (batch, kv_heads, kv_seq, head_dim)
    value: torch.Tensor,  # (batch, kv_heads, kv_seq, head_dim)
    attention_mask: torch.Tensor | None,  # (batch, 1, seq, kv_seq): 0 where visible, very negative where not
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(Q K^T / sqrt(d)) V, written out. The other implementations are transformers' own."""
    key = repeat_kv(key, module.num_key_value_groups)
    value = repeat_kv(value, module.num_key_value_groups)
    scores = query @ key.transpose(2, 3) * scaling  # (batch, heads, seq, kv_seq)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    output = weights @ value  # (batch, heads, seq, head_dim)
    return output.transpose(1, 2).contiguous(), weights


class ScratchAttention(nn.Module):
    """Multi-head, grouped-query or multi-query attention, by the number of key and value heads."""

    def __init__(self, config: ScratchConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        self.is_causal = True
        sliding = config.layer_types[layer_idx] == "sliding_attention"
        self.sliding_window = config.sliding_window if sliding else None

        query_size = config.num_attention_heads * config.head_dim
        key_value_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value_size, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value_size, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=config.attention_bias)
        self.o_proj.initial_std = residual_std(config)
        if config.qk_norm:
            self.q_norm = ScratchRMSNorm(config.head_dim, eps=config.norm_eps)
            self.k_norm = ScratchRMSNorm(config.head_dim, eps=config.norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, seq, hidden)
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_and_seq = hidden_states.shape[:-1]
        per_head = (*batch_and_seq, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(per_head)
        key = self.k_proj(hidden_states).view(per_head)
        value = self.v_proj(hidden_states).view(per_head)
        if self.config.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (batch, heads, seq, head_dim)

        if position_embeddings is not None:
            query = apply_rotary_pos_emb(query, *position_embeddings)
            key = apply_rotary_pos_emb(key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        output = output.reshape(*batch_and_seq, -1).contiguous()  # (batch, seq, heads * head_dim)
        return self.o_proj(output), weights


class ScratchMLP(nn.Module):
    """The position-wise network: SwiGLU, GELU or squared ReLU."""

    def __init__(self, config: ScratchConfig):
        super().__init__()
        self.mlp_type = config.mlp_type
        if self.mlp_type == "swiglu":
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.down_proj.initial_std = residual_std(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate = self.gate_proj(hidden_states) if self.mlp_type == "swiglu" else None
        return self.down_proj(self.activation(self.up_proj(hidden_states), gate))

    def activation(self, inner: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        if self.mlp_type == "swiglu":
            return nn.functional.silu(gate) * inner
        if self.mlp_type == "gelu":
            return nn.functional.gelu(inner, approximate="tanh")
        return nn.functional.relu(inner).square()


class ScratchDecoderLayer(GradientCheckpointingLayer):
    """Attention, then MLP; each reads a normalised copy of the residual stream and adds to it."""

    def __init__(self, config: ScratchConfig, layer_idx: int):
        super().__init__()
        self.self_attn = ScratchAttention(config, layer_idx)
        self.mlp = ScratchMLP(config)
        self.input_layernorm = build_norm(config)
        self.post_attention_layernorm = build_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, seq, hidden)
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), position_embeddings, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class ScratchPreTrainedModel(PreTrainedModel):
    config: ScratchConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ScratchDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": ScratchDecoderLayer, "attentions": ScratchAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        # Only modules with parameters of their own are sure to come by here: for a class that carries its code along,
        # transformers takes all others for initialised. So a matrix itself must know how it starts.
        super()._init_weights(module)  # normal for matrices, ones for norms, and RoPE's buffers after loading
        if hasattr(module, "initial_std"):
            init.normal_(module.weight, std=module.initial_std)
        elif isinstance(module, ScratchModel) and self.config.embedding_shortcut:
            init.ones_(module.residual_scale)
            init.zeros_(module.embedding_scale)


class ScratchModel(ScratchPreTrainedModel):
    """Embedding, decoder layers, final norm: token ids to hidden states."""

    def __init__(self, config: ScratchConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        if config.position_type == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        elif config.position_type == "rope":
            self.rotary_emb = ScratchRotaryEmbedding(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(ScratchDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = build_norm(config)
        if config.embedding_shortcut:
            self.residual_scale = nn.Parameter(torch.ones(config.num_hidden_layers))
            self.embedding_scale = nn.Parameter(torch.zeros(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,  # (batch, seq)
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,  # (batch, seq); restarts at 0 where a packed document begins
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if position_ids is None:
            past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + past_length
            position_ids = position_ids.unsqueeze(0)

        inputs_embeds = self.embed(inputs_embeds, position_ids)
        position_embeddings = None
        if self.config.position_type == "rope":
            position_embeddings = self.rotary_emb(inputs_embeds, position_ids)

        mask_arguments = {
            "config": self.config,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "position_ids": position_ids,
        }
        # generate() with a static cache passes the masks of all kinds of layers ready-made.
        masks = attention_mask if isinstance(attention_mask, dict) else {}
        if not masks:
            masks["full_attention"] = create_causal_mask(**mask_arguments)
            if "sliding_attention" in self.config.layer_types:
                masks["sliding_attention"] = create_sliding_window_causal_mask(**mask_arguments)
        # Only now: given a cache, even an empty one, transformers makes masks that take no notice of packed documents.
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        inputs_embeds = self.dropout(inputs_embeds)
        hidden_states = inputs_embeds
        for index, decoder_layer in enumerate(self.layers[: self.config.num_hidden_layers]):
            if self.config.embedding_shortcut:
                hidden_states = self.residual_scale[index] * hidden_states + self.embedding_scale[index] * inputs_embeds
            hidden_states = decoder_layer(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=masks[self.config.layer_types[index]],
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values)

    def embed(self, inputs_embeds: torch.Tensor, position_ids: torch.LongTensor) -> torch.Tensor:
        """The residual stream before the first layer: token embeddings, and positions unless attention gets them."""
        if self.config.position_type == "learned":
            inputs_embeds = inputs_embeds + self.embed_positions(position_ids)
        elif self.config.position_type == "sinusoidal":
            waves = sinusoidal_embedding(position_ids, self.config.hidden_size)
            inputs_embeds = inputs_embeds + waves.to(inputs_embeds.dtype)
        if torch.is_autocast_enabled(inputs_embeds.device.type):
            # The residual stream too: half the memory traffic between the matrix products. Weights stay in fp32.
            inputs_embeds = inputs_embeds.to(torch.get_autocast_dtype(inputs_embeds.device.type))
        return inputs_embeds


class ScratchForCausalLM(ScratchPreTrainedModel, GenerationMixin):
    """The language model: hidden states to logits over the next token."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: ScratchConfig):
        super().__init__(config)
        self.model = ScratchModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.zero_init_projections and not config.tie_word_embeddings:
            self.lm_head.initial_std = 0.0
        self.chunked_loss = CausalLMLoss(config.final_logit_softcapping)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,  # (batch, seq)
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,  # (batch, seq), not shifted; -100 is not scored
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,  # with labels: only the loss, in a fraction of the memory (loss_scratch.py)
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        decoder = active_decoder(self)
        if decoder is not None:  # one new token at a time: the same numbers without the modules
            others = kwargs | {"inputs_embeds": inputs_embeds, "labels": labels}
            output = decoder.step(input_ids, attention_mask, position_ids, past_key_values, others)
            if output is not None:
                return output

        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states, logits, loss = outputs.last_hidden_state, None, None
        if skip_logits:
            if labels is None:
                raise ValueError("skip_logits leaves only the loss: give labels")
            loss = self.chunked_loss(hidden_states, self.lm_head.weight, labels, **kwargs)
        else:
            kept = _select_positions(hidden_states, logits_to_keep)
            logits = self.softcap(self.lm_head(kept))  # (batch, kept, vocab)
            if labels is not None:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in transformers. Of the ids that generation suppresses because no token had them, it keeps the free ones.

        Args:
            new_num_tokens: `len(tokenizer)`, tokens added since included.
        """
        end = self.config.vocab_size
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        if new_num_tokens is not None:
            suppressed = set(self.generation_config.suppress_tokens or ())
            while end - 1 in suppressed:
                end -= 1
                suppressed.remove(end)
            suppressed.update(range(new_num_tokens, self.config.vocab_size))
            self.generation_config.suppress_tokens = sorted(suppressed) or None
        return embeddings

    def softcap(self, logits: torch.Tensor) -> torch.Tensor:
        cap = self.config.final_logit_softcapping
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def compile_regions(self) -> None:
        """Compile what training spends its time in, in place. All layers share one piece of code: seconds, where
        compiling the whole model takes minutes."""
        for layer in self.model.layers:
            layer.compile()
        if self.device.type != "cpu":  # there the loss works on slices in the cache, which is as fast
            self.chunked_loss.compile()

    @contextmanager
    def _optimize_model_for_decode(self) -> Iterator[None]:
        # transformers' door for exactly this: the decode loop of greedy search and sampling runs inside.
        with super()._optimize_model_for_decode(), fast_decoding(self):
            yield


def _select_positions(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """The positions whose logits are wanted: the last n (0: all), given indices, or a (batch, seq) mask (flattens)."""
    if isinstance(logits_to_keep, int):
        return hidden_states[:, -logits_to_keep:]
    if logits_to_keep.dtype == torch.bool:
        return hidden_states[logits_to_keep]
    if logits_to_keep.ndim == 2:
        return torch.take_along_dim(hidden_states, logits_to_keep[..., None], dim=1)
    return hidden_states[:, logits_to_keep]


class ScratchForSequenceClassification(GenericForSequenceClassification, ScratchPreTrainedModel):
    """A score for each label, read off the last token that is not padding. Also TRL's reward model (one label)."""

    # The inherited forward swallows num_items_in_batch; saying so lets Trainer divide by the accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: ScratchConfig):
        # Not the mixin's __init__: it builds the backbone by AutoModel, which refuses code loaded from the Hub.
        ScratchPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = ScratchModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()
