"""Attention for training on a processor: matrix products that leave out what the causal mask hides."""

import torch
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_scratch.modeling_scratch import eager_attention_forward
from training.common.operations import block_length

BLOCKWISE = "blockwise"  # the name for `attn_implementation`
# Tokens in a sequence up to which PyTorch's fused attention is slower on a processor than plain matrix products around
# a compiled softmax: the scores of a block stay in the cache.
LONGEST_BLOCKWISE = 1024


def pick_attention(device: torch.device, sequence_length: int, compiled: bool) -> str:
    """The name of the fastest attention implementation for training.

    Args:
        sequence_length: tokens in a sequence.
        compiled: whether the layers are compiled.
    """
    return BLOCKWISE if compiled and device.type == "cpu" and sequence_length <= LONGEST_BLOCKWISE else "sdpa"


def blockwise_attention(
    module: nn.Module,
    query: torch.Tensor,  # (batch, heads, seq, head_dim)
    key: torch.Tensor,  # (batch, kv_heads, kv_seq, head_dim)
    value: torch.Tensor,  # (batch, kv_heads, kv_seq, head_dim)
    attention_mask: torch.Tensor,  # (batch, 1, seq, kv_seq): 0 where visible, very negative where not; causal
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Eager attention, a block of queries at a time, with the keys up to the end of the block.

    The keys after it are masked for all of its queries. With four blocks, 5/8 of the scores are computed. The result is
    that of eager attention, bit for bit where the products sum in the same order.

    Returns:
        Output, (batch, seq, heads, head_dim), and no attention weights.
    """
    seq, before = query.shape[2], key.shape[2] - query.shape[2]
    block = block_length(seq)
    outputs = []
    for start in range(0, seq, block):
        end = before + min(start + block, seq)
        rows = slice(start, start + block)
        visible = attention_mask[:, :, rows, :end]
        attended = query[:, :, rows], key[:, :, :end], value[:, :, :end]
        outputs.append(eager_attention_forward(module, *attended, visible, scaling, dropout)[0])
    return torch.cat(outputs, dim=1), None


ALL_ATTENTION_FUNCTIONS.register(BLOCKWISE, blockwise_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(BLOCKWISE, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
