"""Names of tensors in a GGUF file, and those of transformers' Llama, Qwen3 and GPT-2 for the same tensors."""

_LLAMA = (
    ("model.embed_tokens.", "token_embd."),
    ("model.norm.", "output_norm."),
    ("model.layers.", "blk."),
    (".input_layernorm.", ".attn_norm."),
    (".post_attention_layernorm.", ".ffn_norm."),
    (".self_attn.q_proj.", ".attn_q."),
    (".self_attn.k_proj.", ".attn_k."),
    (".self_attn.v_proj.", ".attn_v."),
    (".self_attn.o_proj.", ".attn_output."),
    (".self_attn.q_norm.", ".attn_q_norm."),
    (".self_attn.k_norm.", ".attn_k_norm."),
    (".mlp.gate_proj.", ".ffn_gate."),
    (".mlp.up_proj.", ".ffn_up."),
    (".mlp.down_proj.", ".ffn_down."),
    ("lm_head.", "output."),  # last: the name in GGUF is the end of another
)
_GPT2 = (
    ("transformer.wte.", "token_embd."),
    ("transformer.wpe.", "position_embd."),
    ("transformer.ln_f.", "output_norm."),
    ("transformer.h.", "blk."),
    (".ln_1.", ".attn_norm."),
    (".ln_2.", ".ffn_norm."),
    (".attn.c_attn.", ".attn_qkv."),
    (".attn.c_proj.", ".attn_output."),
    (".mlp.c_fc.", ".ffn_up."),
    (".mlp.c_proj.", ".ffn_down."),
    ("lm_head.", "output."),
)
_TENSORS = {"llama": _LLAMA, "qwen3": _LLAMA, "gpt2": _GPT2}
ARCHITECTURES = tuple(_TENSORS)  # `general.architecture` of a file, and transformers' `model_type`


def gguf_name(name: str, architecture: str) -> str:
    """The name in a GGUF file of a tensor of transformers."""
    for stock, gguf in _TENSORS[architecture]:
        name = name.replace(stock, gguf)
    return name


def stock_name(name: str, architecture: str) -> str:
    """The name in transformers of a tensor of a GGUF file."""
    for stock, gguf in _TENSORS[architecture]:
        name = name.replace(gguf, stock)
    return name
