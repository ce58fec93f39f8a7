"""State dicts of the book "Build a Large Language Model (From Scratch)": its GPT, Llama 3 and Qwen3."""

from typing import Any

import torch

from training.foreign.checkpoint import Checkpoint
from training.foreign.sizes import Sizes
from training.foreign.stock import StockModel, gpt2_config, head_dim, llama_config, with_output

NAME, FILE = "LLMs-from-scratch", "model.pth"
_ATTENTION = ("W_query", "W_key", "W_value", "out_proj")
KEYS = frozenset({"tok_emb.weight", "out_head.weight", *(f"trf_blocks.N.att.{matrix}.weight" for matrix in _ATTENTION)})
_ROPE = "'{rope_type: default, rope_theta: 500000}'"


def matches(checkpoint: Checkpoint) -> bool:
    """Whether it has the tensors of all three."""
    return checkpoint.names() >= KEYS


def read(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    """The model. None of the three writes its number of heads; Llama and Qwen3 also lack context and rotation."""
    checkpoint.ignore(r"\.att\.(mask|cos|sin)$|^(mask|cos|sin)$")  # buffers
    if "pos_emb.weight" in checkpoint.tensors:
        return _read_gpt(checkpoint, sizes)
    return _read_llama(checkpoint, sizes)


def _read_gpt(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    vocab, hidden = checkpoint.shape("tok_emb.weight")
    context = sizes.agree(checkpoint, "context", checkpoint.shape("pos_emb.weight")[0], 1024)
    heads = sizes.agree(checkpoint, "heads", None, 12)
    head_dim(checkpoint, hidden, heads)
    layers, inner = checkpoint.layers("trf_blocks."), checkpoint.shape("trf_blocks.0.ff.layers.0.weight")[0]
    weights = {
        "transformer.wte.weight": checkpoint.take("tok_emb.weight", vocab, hidden),
        "transformer.wpe.weight": checkpoint.take("pos_emb.weight", context, hidden),
    }
    biased = "trf_blocks.0.att.W_query.bias" in checkpoint.tensors  # its option qkv_bias
    linear = {
        "attn.c_proj": ("att.out_proj", hidden, hidden),
        "mlp.c_fc": ("ff.layers.0", inner, hidden),
        "mlp.c_proj": ("ff.layers.2", hidden, inner),
    }
    norms = {f"transformer.h.{n}.ln_{i}": f"trf_blocks.{n}.norm{i}" for n in range(layers) for i in (1, 2)}
    for ours, theirs in (norms | {"transformer.ln_f": "final_norm"}).items():
        weights[f"{ours}.weight"] = checkpoint.take(f"{theirs}.scale", hidden)
        weights[f"{ours}.bias"] = checkpoint.take(f"{theirs}.shift", hidden)
    for layer in range(layers):
        ours, theirs = f"transformer.h.{layer}", f"trf_blocks.{layer}"
        for name, (place, rows, columns) in linear.items():
            weights[f"{ours}.{name}.weight"] = checkpoint.take(f"{theirs}.{place}.weight", rows, columns).T.contiguous()
            weights[f"{ours}.{name}.bias"] = checkpoint.take(f"{theirs}.{place}.bias", rows)
        parts = [f"{theirs}.att.{name}" for name in _ATTENTION[:3]]
        joined = torch.cat([checkpoint.take(f"{part}.weight", hidden, hidden) for part in parts])
        bias = torch.zeros(3 * hidden, dtype=joined.dtype)
        if biased:
            bias = torch.cat([checkpoint.take(f"{part}.bias", hidden) for part in parts])
        weights[f"{ours}.attn.c_attn.weight"], weights[f"{ours}.attn.c_attn.bias"] = joined.T.contiguous(), bias
    config = gpt2_config(vocab, context, hidden, inner, layers, heads, "gelu_new", 0.0)
    return with_output(StockModel(NAME, config, weights), checkpoint, "out_head.weight", f"a GPT of {NAME}")


def _read_llama(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    # Its Qwen3 and its Llama differ in the name of a norm's weights, and in what is added to the variance.
    norm, eps = ("scale", 1e-6) if "final_norm.scale" in checkpoint.tensors else ("weight", 1e-5)
    qk_norm = "trf_blocks.0.att.q_norm.scale" in checkpoint.tensors
    if "trf_blocks.0.ff.gate.weight" in checkpoint.tensors:
        raise checkpoint.error("it is a mixture of experts, which no model here has; it cannot be imported")
    vocab, hidden = checkpoint.shape("tok_emb.weight")
    rows = checkpoint.shape("trf_blocks.0.att.W_query.weight")[0]
    key_value = checkpoint.shape("trf_blocks.0.att.W_key.weight")[0]
    stored = rows // max(1, checkpoint.shape("trf_blocks.0.att.q_norm.scale", 1)[0]) if qk_norm else None
    heads = sizes.agree(checkpoint, "heads", stored, 32)
    context = sizes.agree(checkpoint, "context", None, 8192)
    rope: dict[str, Any] = sizes.agree(checkpoint, "rope_parameters", None, _ROPE)
    width = head_dim(checkpoint, rows, heads)
    if key_value % width:
        raise checkpoint.error(f"heads of {width} do not divide {key_value} rows of keys; correct --heads")
    inner, layers = checkpoint.shape("trf_blocks.0.ff.fc1.weight")[0], checkpoint.layers("trf_blocks.")
    matrices = {
        "self_attn.q_proj": ("att.W_query", rows, hidden),
        "self_attn.k_proj": ("att.W_key", key_value, hidden),
        "self_attn.v_proj": ("att.W_value", key_value, hidden),
        "self_attn.o_proj": ("att.out_proj", hidden, rows),
        "mlp.gate_proj": ("ff.fc1", inner, hidden),
        "mlp.up_proj": ("ff.fc2", inner, hidden),
        "mlp.down_proj": ("ff.fc3", hidden, inner),
    }
    norms = {"input_layernorm": ("norm1", hidden), "post_attention_layernorm": ("norm2", hidden)}
    if qk_norm:
        norms |= {"self_attn.q_norm": ("att.q_norm", width), "self_attn.k_norm": ("att.k_norm", width)}
    weights = {
        "model.embed_tokens.weight": checkpoint.take("tok_emb.weight", vocab, hidden),
        "model.norm.weight": checkpoint.take(f"final_norm.{norm}", hidden),
    }
    for layer in range(layers):
        ours, theirs = f"model.layers.{layer}", f"trf_blocks.{layer}"
        for name, (place, *shape) in matrices.items():
            weights[f"{ours}.{name}.weight"] = checkpoint.take(f"{theirs}.{place}.weight", *shape)
        for name, (place, size) in norms.items():
            weights[f"{ours}.{name}.weight"] = checkpoint.take(f"{theirs}.{place}.{norm}", size)
    config = llama_config(
        qk_norm,
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value // width,
        head_dim=width,
        max_position_embeddings=context,
        rms_norm_eps=eps,
        rope_parameters=dict(rope),
    )
    described = f"a {'Qwen3' if qk_norm else 'Llama'} of {NAME}"
    return with_output(StockModel(NAME, config, weights), checkpoint, "out_head.weight", described)
