"""A decoder-only transformer, bottom to top: norm, positions, attention, MLP, layer, model, heads.

Token ids become vectors (the embedding), and each layer adds to these vectors what its attention gathers from earlier
tokens and what its MLP computes for each token alone. A last matrix turns each vector into logits of the next token.

Shapes in comments: `seq` is the number of new tokens, `kv_seq` the number of tokens attended to (cache included),
`hidden` is `hidden_size`, and `heads * head_dim` is the width of the queries.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import (
    GenericForQuestionAnswering,
    GenericForSequenceClassification,
    GenericForTokenClassification,
    GradientCheckpointingLayer,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_scratch import ScratchConfig
from .decoding_scratch import fast_decoding, fast_single_steps, generation_settings
from .loss_scratch import CausalLMLoss, is_plain_linear
from .originals_scratch import Originals
from .prompts_scratch import has_dropout, read_distinct_prompts


class ScratchRMSNorm(nn.Module):
    """RMSNorm: divide by the root mean square over the last dimension, in fp32, then multiply by a learned gain.

    Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467
    """

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # (..., size) -> (..., size), same dtype
        # Squares overflow fp16 and lose most of bf16's eight bits; rounding before the gain, as Llama does.
        normed = nn.functional.rms_norm(hidden_states.float(), self.weight.shape, eps=self.eps)
        return self.weight.to(hidden_states.dtype) * normed.to(hidden_states.dtype)


def build_norm(config: ScratchConfig) -> nn.Module:
    """The norm of `norm_type` over the residual stream."""
    if config.norm_type == "rms":
        return ScratchRMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)


class ScratchRotaryEmbedding(nn.Module):
    """RoPE: cosines and sines of the angles position * theta^(-2i / head_dim), i = 0 ... head_dim / 2 - 1.

    Su et al., 2021, https://arxiv.org/abs/2104.09864

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
        """Unscaled frequencies, (head_dim / 2,), and the factor for cosines and sines, 1. transformers calls it too."""
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        return config.rope_parameters["rope_theta"] ** -exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each (batch, seq, head_dim), in the dtype and on the device of `x`.

        Args:
            position_ids: (batch, seq) or (1, seq).
        """
        # Angles in fp32: bf16 cannot tell position 257 from 258.
        angles = position_ids[..., None].float() * self.inv_freq.to(x.device, torch.float)  # (batch, seq, head_dim / 2)
        angles = torch.cat((angles, angles), dim=-1)  # (batch, seq, head_dim)
        return (angles.cos() * self.attention_scaling).to(x.dtype), (angles.sin() * self.attention_scaling).to(x.dtype)


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """(x1, x2) -> (-x2, x1), where coordinate i is paired with i + head_dim / 2.

    The pairing of every Hugging Face checkpoint; the paper pairs i with i + 1.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rotary_pos_emb(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries or keys, (batch, heads, seq, head_dim), with each pair of coordinates rotated by its angle."""
    cos, sin = (table.unsqueeze(1).to(x.dtype) for table in (cos, sin))  # (batch, 1, seq, head_dim): same for all heads
    return x * cos + rotate_half(x) * sin


def sinusoidal_embedding(position_ids: torch.LongTensor, size: int) -> torch.Tensor:
    """Sines and cosines of the positions, (batch, seq) -> (batch, seq, size), wavelengths growing geometrically.

    Vaswani et al., 2017, section 3.5, https://arxiv.org/abs/1706.03762
    """
    frequencies = 10000 ** -(torch.arange(0, size, 2, device=position_ids.device).float() / size)
    angles = position_ids[..., None].float() * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)[..., :size]  # (batch, seq, size)


def repeat_kv(x: torch.Tensor, groups: int) -> torch.Tensor:
    """(batch, kv_heads, seq, head_dim) -> (batch, kv_heads * groups, seq, head_dim); adjacent heads share keys."""
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
    """Attention written out: softmax(Q K^T / sqrt(head_dim) + mask) V. The other implementations are transformers'.

    Vaswani et al., 2017, https://arxiv.org/abs/1706.03762

    Returns:
        Output, (batch, seq, heads, head_dim), and attention weights, (batch, heads, seq, kv_seq).
    """
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
    """Causal self-attention: multi-head, multi-query or grouped-query, by the number of key and value heads.

    Multi-query: https://arxiv.org/abs/1911.02150, grouped-query: https://arxiv.org/abs/2305.13245, the norm of queries
    and keys (`qk_norm`): https://arxiv.org/abs/2010.04245
    """

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
        if config.qk_norm:
            self.q_norm = ScratchRMSNorm(config.head_dim, eps=config.norm_eps)
            self.k_norm = ScratchRMSNorm(config.head_dim, eps=config.norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, seq, hidden)
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None,  # cosines and sines, (batch, seq, head_dim)
        attention_mask: torch.Tensor | None,  # as the attention implementation takes it; None: causal
        past_key_values: Cache | None = None,  # extended by the new keys and values
        **kwargs: Unpack[TransformersKwargs],  # for the attention implementation
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Output, (batch, seq, hidden), and attention weights if the implementation computes them."""
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
    """The position-wise network: SwiGLU, GELU or squared ReLU.

    SwiGLU: https://arxiv.org/abs/2002.05202, GELU: https://arxiv.org/abs/1606.08415, squared ReLU:
    https://arxiv.org/abs/2109.08668
    """

    def __init__(self, config: ScratchConfig):
        super().__init__()
        self.mlp_type = config.mlp_type
        if self.mlp_type == "swiglu":
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # (batch, seq, hidden) -> (batch, seq, hidden)
        gate = self.gate_proj(hidden_states) if self.mlp_type == "swiglu" else None
        return self.down_proj(self.activation(self.up_proj(hidden_states), gate))

    def activation(self, inner: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        """The nonlinearity between the projections, on (..., intermediate). Only SwiGLU has a gate."""
        if self.mlp_type == "swiglu":
            return nn.functional.silu(gate) * inner
        if self.mlp_type == "gelu":
            return nn.functional.gelu(inner, approximate="tanh")
        if self.mlp_type == "gelu_exact":
            return nn.functional.gelu(inner)
        return nn.functional.relu(inner).square()


class ScratchDecoderLayer(GradientCheckpointingLayer):
    """Attention, then MLP: each reads a normalised copy of the residual stream and adds its output to the stream.

    Norms before the two, not after (pre-norm): https://arxiv.org/abs/2002.04745
    """

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
        **kwargs: Unpack[TransformersKwargs],  # for the attention, its mask and cache among them
    ) -> torch.Tensor:  # (batch, seq, hidden)
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), position_embeddings, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


def initial_std(name: str, config: ScratchConfig) -> float | None:
    """Standard deviation of the initial weights of a linear layer, by its name; None: `initializer_range`.

    Two projections a layer add to the residual stream. They start smaller by sqrt(2 * layers), so that their sum is as
    large at any depth (GPT-2, section 2.3), or at zero: each layer then starts as the identity.
    """
    if name.endswith(("o_proj", "down_proj")):
        return 0.0 if config.zero_init_projections else config.initializer_range / (2 * config.num_hidden_layers) ** 0.5
    if name == "lm_head" and config.zero_init_projections and not config.tie_word_embeddings:
        return 0.0  # the first loss is ln(vocab_size)
    return None


class ScratchPreTrainedModel(PreTrainedModel):
    """Base class of the models here: which features of transformers they support, and their initial weights."""

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
        # Called for every module. For code that came with a checkpoint, transformers skips modules without direct
        # parameters, such as the attention; so each linear layer is initialised in its own call, by its name.
        super()._init_weights(module)  # normal for matrices, ones for norms, and RoPE's buffers after loading
        if isinstance(module, nn.Linear):
            name = next((name for name, other in self.named_modules() if other is module), "")  # "": a resized head
            std = initial_std(name, self.config)
            if std is not None:
                init.normal_(module.weight, std=std)
        elif isinstance(module, ScratchModel) and self.config.embedding_shortcut:
            init.ones_(module.residual_scale)
            init.zeros_(module.embedding_scale)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does. All Auto classes open the folder, whichever class was saved."""
        model = self
        if type(self).__module__.startswith("torch."):  # FSDP2's subclass of ours; torch's code would be saved with it
            model = object.__new__(next(cls for cls in type(self).__mro__ if not cls.__module__.startswith("torch.")))
            vars(model).update(vars(self))
        if type(model) in AUTO_CLASSES.values() and model._auto_class:
            model.config.auto_map = (getattr(model.config, "auto_map", None) or {}) | AUTO_MAP
        super(ScratchPreTrainedModel, model).save_pretrained(save_directory, *args, **kwargs)


class ScratchModel(ScratchPreTrainedModel):
    """The backbone: token ids to hidden states, by embedding, decoder layers and a final norm."""

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
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.LongTensor | None = None,  # (batch, seq)
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,  # (batch, seq, hidden)
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Hidden states of the last layer, after the final norm.

        Args:
            input_ids: token ids. Either these or `inputs_embeds`.
            attention_mask: 2-D, (batch, kv_seq): 1 for tokens, 0 for padding; the causal mask is added. Or 4-D,
                (batch, 1, seq, kv_seq), used as it is: added to the scores (0 or very negative), or with sdpa also
                True where a token may attend. Or a dict of 4-D masks by kind of layer, `full_attention` and
                `sliding_attention`. Default: the causal mask alone.
            position_ids: default: 0, 1, 2, ..., after the cached tokens. A 0 begins a new packed document; without
                mask and cache, no token attends to another document.
            past_key_values: keys and values of earlier tokens; extended in place.
            inputs_embeds: embeddings in place of `input_ids`; positions are still added.
            use_cache: return a cache, a new one unless `past_key_values` is given. Default: the configuration's.
            kwargs: `output_hidden_states`, `output_attentions`, and arguments of the attention implementation.

        Returns:
            `last_hidden_state` (batch, seq, hidden); `past_key_values`; if requested `hidden_states`, one
            (batch, seq, hidden) before each layer and after the last, and `attentions`, one (batch, heads, seq, kv_seq)
            a layer.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`.
        """
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

        masks = self.attention_masks(inputs_embeds, attention_mask, past_key_values, position_ids)
        # After the masks: given a cache, even an empty one, transformers ignores packed documents in them.
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

    def attention_masks(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None,
        past_key_values: Cache | None,
        position_ids: torch.LongTensor,
    ) -> dict[str, torch.Tensor | None]:
        """The mask of each kind of layer, in the form of the attention implementation. See `forward`."""
        if isinstance(attention_mask, dict):  # ready-made, from generate() with a static cache
            return attention_mask
        arguments = {
            "config": self.config,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "position_ids": position_ids,
        }
        masks = {"full_attention": create_causal_mask(**arguments)}
        if "sliding_attention" in self.config.layer_types:
            masks["sliding_attention"] = create_sliding_window_causal_mask(**arguments)
        return masks

    def embed(self, inputs_embeds: torch.Tensor, position_ids: torch.LongTensor) -> torch.Tensor:
        """The residual stream before the first layer, (batch, seq, hidden): token embeddings, plus learned or
        sinusoidal positions."""
        if self.config.position_type == "learned":
            inputs_embeds = inputs_embeds + self.embed_positions(position_ids)
        elif self.config.position_type == "sinusoidal":
            waves = sinusoidal_embedding(position_ids, self.config.hidden_size)
            inputs_embeds = inputs_embeds + waves.to(inputs_embeds.dtype)
        if torch.is_autocast_enabled(inputs_embeds.device.type):
            # The residual stream too: half the memory traffic between the matrix products. Weights stay in fp32.
            inputs_embeds = inputs_embeds.to(torch.get_autocast_dtype(inputs_embeds.device.type))
        return inputs_embeds


# The code above, which the decode loop replaces: it notices whatever somebody changes.
ORIGINALS = Originals(__name__)


class ScratchForCausalLM(ScratchPreTrainedModel, GenerationMixin):
    """The language model: a backbone, and a matrix from hidden states to logits of the next token.

    Example:
        model = ScratchForCausalLM(ScratchConfig.from_preset("llama", vocab_size=8192))
        loss = model(input_ids, labels=input_ids).loss  # nats per token
        tokens = model.generate(input_ids, max_new_tokens=20)
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[cls.__name__] = cls.__name__  # see the end of this file

    def __init__(self, config: ScratchConfig):
        super().__init__(config)
        self.loss_type = "ForCausalLM"  # transformers takes it from the name of the class, which a subclass may change
        self.model = ScratchModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.chunked_loss = CausalLMLoss()
        self.post_init()

    @can_return_tuple
    @fast_single_steps
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,  # (batch, seq)
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.LongTensor | None = None,  # (batch, seq)
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,  # (batch, seq, hidden)
        labels: torch.LongTensor | None = None,  # (batch, seq)
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Logits of the next token at each position, and the loss if there are labels.

        Args:
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache: see `ScratchModel`.
            labels: token ids, not shifted (usually `input_ids`); -100 is not scored.
            logits_to_keep: positions whose logits are computed: the last n (0: all); a slice, indices (n,) or a boolean
                mask (seq,) for all sequences; indices (batch, n) by sequence; or a boolean mask (batch, seq), which
                flattens both. The loss from logits needs all positions.
            skip_logits: compute the loss alone, in a fraction of the memory (loss_scratch.py). If anything was added or
                changed in `lm_head`, `softcap` or `loss_function`, such as an adapter, it is computed from the logits.
            kwargs: `shift_labels`, (batch, seq), labels that are already shifted, in place of `labels` (without
                `skip_logits`, `labels` must be given too, as in transformers); `num_items_in_batch`, the number that
                the summed loss is divided by (default: the scored tokens); others as in `ScratchModel`.

        Returns:
            `loss`, a scalar in nats per token, or None; `logits`, (batch, kept positions, vocab), None with
            `skip_logits`; the rest as `ScratchModel` returns it.

        Raises:
            ValueError: `skip_logits` without labels.
        """
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
        if skip_logits and labels is None and kwargs.get("shift_labels") is None:
            raise ValueError("skip_logits computes only the loss; give labels or shift_labels")
        if skip_logits and self._loss_is_plain():
            softcap = self.config.final_logit_softcapping
            loss = self.chunked_loss(hidden_states, self.lm_head.weight, labels, softcap=softcap, **kwargs)
        else:
            kept = hidden_states if skip_logits else _select_positions(hidden_states, logits_to_keep)
            logits = self.softcap(self.lm_head(kept))  # (batch, kept, vocab)
            if labels is not None or skip_logits:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=None if skip_logits else logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize as transformers does, and suppress in generation the ids that still belong to no token.

        `tokenizer_size` in the generation settings tells these ids from those that a user suppresses.

        Args:
            new_num_tokens: `len(tokenizer)`, added tokens included.
        """
        settings = self.generation_config
        size = getattr(settings, "tokenizer_size", self.config.vocab_size)
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        own = {token for token in settings.suppress_tokens or () if token < min(size, self.config.vocab_size)}
        settings._from_model_config = False  # with True, loading would forget tokenizer_size
        settings.tokenizer_size = size if new_num_tokens is None else new_num_tokens
        phantoms = range(settings.tokenizer_size, self.config.vocab_size)
        settings.suppress_tokens = sorted(own.union(phantoms)) or None
        return embeddings

    def softcap(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits kept between plus and minus `final_logit_softcapping`, smoothly. https://arxiv.org/abs/2408.00118"""
        cap = self.config.final_logit_softcapping
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _loss_is_plain(self) -> bool:
        """Whether `chunked_loss` computes the model's loss: head, soft cap and loss function are those of this file."""
        softcap = getattr(self.softcap, "__func__", None)
        return is_plain_linear(self.lm_head) and softcap is _SOFTCAP and self.loss_function is ForCausalLMLoss

    def compile_regions(self) -> None:
        """Compile the layers, and on a GPU the loss, in place.

        All layers share one compiled function, which takes seconds; compiling the whole model takes minutes.
        """
        for layer in self.model.layers:
            layer.compile()
        if self.device.type != "cpu":  # on a CPU the loss works on slices that fit in the cache, which is as fast
            self.chunked_loss.compile()

    def _sample(self, *args: Any, generation_config: GenerationConfig, **kwargs: Any) -> Any:
        with generation_settings(generation_config):
            return super()._sample(*args, generation_config=generation_config, **kwargs)

    def _prefill(self, *args: Any, **kwargs: Any) -> CausalLMOutputWithPast:
        # transformers' hook for reading the prompts.
        if has_dropout(self):
            return super()._prefill(*args, **kwargs)
        return read_distinct_prompts(super()._prefill, *args, **kwargs)

    @contextmanager
    def _optimize_model_for_decode(self) -> Iterator[None]:
        # transformers' hook for faster decoding: greedy search and sampling run inside.
        with super()._optimize_model_for_decode(), fast_decoding(self, ORIGINALS):
            yield


_SOFTCAP = ScratchForCausalLM.softcap


def _select_positions(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """Hidden states at `logits_to_keep`, see `forward`. transformers' own function is missing in its older releases."""
    if isinstance(logits_to_keep, int):
        return hidden_states[:, -logits_to_keep:]
    if isinstance(logits_to_keep, torch.Tensor) and logits_to_keep.ndim == 2:
        if logits_to_keep.dtype == torch.bool:
            return hidden_states[logits_to_keep]
        return torch.take_along_dim(hidden_states, logits_to_keep[..., None], dim=1)
    return hidden_states[:, logits_to_keep]


# The other heads inherit a forward pass, but build themselves: the mixins build the backbone with AutoModel, which
# rejects code loaded from the Hub.


class ScratchForSequenceClassification(GenericForSequenceClassification, ScratchPreTrainedModel):
    """A score for each label, (batch, num_labels), from the last token that is not padding.

    With one label it is a reward model for TRL. The inherited forward takes `labels`, (batch,), and the arguments of
    `ScratchModel`, and returns `loss`, `logits` and `past_key_values`.
    """

    # The inherited forward ignores num_items_in_batch; with False, Trainer divides by the accumulation steps itself.
    accepts_loss_kwargs = False

    def __init__(self, config: ScratchConfig):
        ScratchPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = ScratchModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()


class ScratchForTokenClassification(GenericForTokenClassification, ScratchPreTrainedModel):
    """A score for each label at each token, (batch, seq, num_labels), from this token and those before it.

    The inherited forward takes `labels`, (batch, seq), which are not shifted, and the arguments of `ScratchModel`, and
    returns `loss` and `logits`.
    """

    accepts_loss_kwargs = False  # as above

    def __init__(self, config: ScratchConfig):
        ScratchPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = ScratchModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.score = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()


class ScratchForQuestionAnswering(GenericForQuestionAnswering, ScratchPreTrainedModel):
    """Scores of each token as the first and as the last of the answer, each (batch, seq).

    The inherited forward takes `start_positions` and `end_positions`, (batch,), and the arguments of `ScratchModel`,
    and returns `loss`, `start_logits` and `end_logits`.
    """

    def __init__(self, config: ScratchConfig):
        ScratchPreTrainedModel.__init__(self, config)
        self.model = ScratchModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()


# For each Auto class, the class of a model's folder that it opens, and transformers' table of such classes.
_CLASSES = {
    "AutoModel": (ScratchModel, modeling_auto.MODEL_MAPPING_NAMES),
    "AutoModelForCausalLM": (ScratchForCausalLM, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "AutoModelForQuestionAnswering": (
        ScratchForQuestionAnswering,
        modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    ),
    "AutoModelForSequenceClassification": (
        ScratchForSequenceClassification,
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "AutoModelForTokenClassification": (
        ScratchForTokenClassification,
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    ),
}
# The package registers these classes, and every save lists them.
AUTO_CLASSES = {auto_class: model_class for auto_class, (model_class, _) in _CLASSES.items()}
AUTO_MAP = {"AutoConfig": "configuration_scratch.ScratchConfig"} | {
    auto_class: f"modeling_scratch.{model_class.__name__}" for auto_class, model_class in AUTO_CLASSES.items()
}

# By these tables transformers and lm-eval decide what a class is for. Under label smoothing, for example, Trainer
# shifts labels only for the names of causal language models. `register` of the Auto classes does not enter them.
for _model_class, _names in _CLASSES.values():
    _names["scratch"] = _model_class.__name__
