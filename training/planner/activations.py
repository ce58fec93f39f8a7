"""Bytes of activations, by formulas: what a layer keeps for its backward pass, and what the loss holds.

The formulas follow our layers tensor by tensor, as Korthikanti et al. (https://arxiv.org/abs/2205.05198) follow those
of GPT-3. `count` runs the layers themselves on fake tensors, and a test holds the two together.

`width` is hidden_size, `inner` intermediate_size, `unit` the bytes of an activation: 2 in bf16, 4 in fp32.
"""

from training.planner.architecture import Architecture
from training.planner.layout import Shape

# modeling_scratch/loss_scratch.py has the same. It imports torch; a test compares.
BLOCK_ON_CPU, BLOCK_ON_GPU = 256, 2048
PART, SLICE = 2**14, 2**18


def unit_of(shape: Shape) -> int:
    """Bytes of an activation."""
    return 2 if shape.bf16 else 4


def layer_bytes(architecture: Architecture, shape: Shape, cpu: bool, parts: int = 1) -> float:
    """Bytes per token that a layer keeps for its backward pass, weights not included.

    Args:
        cpu: on a GPU, autocast runs LayerNorm in fp32 and copies its output for each matrix.
        parts: devices that share the matrices (tensor parallelism); norms and the residual stream are not divided.
    """
    unit, query, keys = unit_of(shape), architecture.query_width / parts, architecture.key_value_width / parts
    norms = _norm(architecture, shape, cpu, consumers=3)
    norms += _norm(architecture, shape, cpu, consumers=2 if architecture.gated else 1)
    norms += (architecture.norms_per_layer - 2) * _norm(architecture, shape, cpu, consumers=1)
    if architecture.qk_norm:  # fp32 copy and normalised copy; what follows is counted as the query or key
        norms += (4 + unit) * (query + keys) + 4 * (query + keys) / architecture.head_dim
    if architecture.embedding_shortcut:
        norms += unit * architecture.hidden_size
    attention = _attention(architecture, shape, query, keys, parts) + _window_mask(architecture, shape)
    return norms + attention + _mlp(architecture, shape) / parts


def _norm(architecture: Architecture, shape: Shape, cpu: bool, consumers: int) -> float:
    """A norm over the residual stream, its output included.

    Args:
        consumers: matrices that read the output.
    """
    width, unit = architecture.hidden_size, unit_of(shape)
    if architecture.norm_type == "rms":
        return (4 + 2 * unit) * width + 4  # input in fp32, normalised, times the gain; the root mean square
    if shape.bf16 and not cpu:
        return (4 + 2 * consumers) * width + 8
    return 2 * unit * width + 8


def _attention(architecture: Architecture, shape: Shape, query: float, keys: float, parts: int) -> float:
    """Queries, keys, values and outputs; scores if attention is written out, else the logarithm of their sum."""
    unit, heads = unit_of(shape), architecture.num_attention_heads / parts
    if keys_scored := shape.keys_scored:
        scores = 4 + (2 if shape.bf16 else 0)  # softmax in fp32, and its copy in bf16
        return 4 * unit * query + scores * heads * keys_scored
    return 2 * unit * (query + keys) + 4 * heads


def _window_mask(architecture: Architecture, shape: Shape) -> float:
    """The mask of a window, which sdpa alone keeps for every layer; the mean over the layers that have one or not."""
    windows = [window for window in architecture.windows if window is not None and window < shape.sequence_length]
    if shape.attention != "sdpa":
        return 0.0
    return unit_of(shape) * shape.sequence_length * len(windows) / architecture.num_hidden_layers


def _mlp(architecture: Architecture, shape: Shape) -> float:
    """Gate, its activation, up and their product; without a gate, the activation's input and output."""
    return (4 if architecture.gated else 2) * unit_of(shape) * architecture.intermediate_size


def backward_bytes(architecture: Architecture, shape: Shape, parts: int = 1) -> float:
    """Bytes per token that the backward pass of a layer needs at its peak, beyond what the layer keeps."""
    unit = unit_of(shape)
    inner = unit * architecture.intermediate_size / parts
    copies = {"swiglu": 2, "geglu": 2, "gelu": 1, "gelu_exact": 1, "relu2": 3}[architecture.mlp_type]
    peak = copies * inner
    if keys_scored := shape.keys_scored:  # gradients of the scores; by then the MLP's activations are freed
        scores = (6 if shape.bf16 else 8) * keys_scored * architecture.num_attention_heads / parts
        scores += 6 * architecture.query_width / parts if shape.bf16 else 0
        norm = 2 * unit + (4 if architecture.norm_type == "rms" else 0)
        peak = max(peak, scores - _mlp(architecture, shape) / parts - norm * architecture.hidden_size)
    # Gradients of the residual stream; a recomputed RMSNorm holds one more.
    stream = 2 if shape.checkpointing and architecture.norm_type == "rms" else 1
    return peak + stream * unit * architecture.hidden_size


def final_norm_bytes(architecture: Architecture, shape: Shape) -> float:
    """Bytes per token of the gradients inside the final norm, which a CPU computes in several fp32 steps."""
    if architecture.norm_type == "layer":
        return 3 * unit_of(shape) * architecture.hidden_size
    return (18 if shape.bf16 else 20) * architecture.hidden_size


def mask_bytes(shape: Shape) -> float:
    """Bytes per token of the causal mask that is added to the scores of every head, if attention is written out."""
    return unit_of(shape) * shape.sequence_length if shape.keys_scored else 0.0


def loss_bytes(architecture: Architecture, shape: Shape, cpu: bool) -> float:
    """Bytes of the loss at its peak: hidden states, logits, and all gradients that exist by then."""
    unit, vocab, width = unit_of(shape), architecture.vocab_size, architecture.hidden_size
    tokens = shape.micro_batch * shape.sequence_length
    hidden = unit * width * tokens
    lowered = 2 * vocab * width if shape.bf16 else 0  # the output matrix in bf16
    if not shape.chunked_loss:  # the logarithm of the softmax, its gradient and that of the logits, all in fp32
        capped = unit if architecture.final_logit_softcapping else 0  # the tanh of the soft cap
        return (12 + capped) * vocab * tokens + hidden + lowered
    rows = min(tokens, BLOCK_ON_CPU if cpu else BLOCK_ON_GPU)
    block = unit * rows * vocab
    product = unit * min(vocab, PART) * width
    if shape.bf16 and cpu:  # added to the gradient in fp32; a GPU converts inside the kernel
        product += 4 * min(vocab, PART) * width
    scores = 4 * (min(max(1, SLICE // vocab), rows) if cpu else rows) * vocab
    scores *= (1 if shape.bf16 else 0) + (2 if architecture.final_logit_softcapping else 0)
    scores += block if rows < tokens else 0  # of the last block, which is freed only after the next is computed
    # Hidden states and their gradients; at the end the blocks of gradients are copied into one tensor.
    gradients = 4 * vocab * width + hidden + max(hidden + max(product, scores), 2 * hidden)
    return gradients + lowered + block
