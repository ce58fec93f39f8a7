"""llama2.c's checkpoints, `ckpt.pt` and `.bin`: a Llama whose rotation pairs neighbouring coordinates."""

from training.foreign.checkpoint import Checkpoint
from training.foreign.sizes import Sizes, check_settings, mapping, number, whole_number
from training.foreign.stock import StockModel, head_dim, llama_config, to_halves, with_output

NAME, FILE = "llama2.c", "ckpt.pt"
_LAYER = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
KEYS = frozenset({"tok_embeddings.weight", "norm.weight", *(f"layers.N.{theirs}.weight" for theirs in _LAYER.values())})


def matches(checkpoint: Checkpoint) -> bool:
    """Whether it has the tensors."""
    return checkpoint.names() >= KEYS


def read(checkpoint: Checkpoint, sizes: Sizes) -> StockModel:
    """The model as Llama. A bare state dict lacks the number of heads and the context."""
    checkpoint.ignore(r"^freqs_(cos|sin|cis)$")
    settings = mapping(checkpoint, checkpoint.beside, "model_args")
    vocab, hidden = checkpoint.shape("tok_embeddings.weight")
    layers = checkpoint.layers("layers.")
    check_settings(checkpoint, settings, {"vocab_size": vocab, "dim": hidden, "n_layers": layers})
    heads = sizes.agree(checkpoint, "heads", whole_number(checkpoint, settings, "n_heads"), 6)
    context = sizes.agree(checkpoint, "context", whole_number(checkpoint, settings, "max_seq_len"), 256)
    width = head_dim(checkpoint, hidden, heads)
    key_value = checkpoint.shape("layers.0.attention.wk.weight")[0]
    check_settings(checkpoint, settings, {"n_kv_heads": key_value // width})
    inner = checkpoint.shape("layers.0.feed_forward.w1.weight")[0]
    shapes = {
        "attention.wq": (hidden, hidden),
        "attention.wk": (key_value, hidden),
        "attention.wv": (key_value, hidden),
        "attention.wo": (hidden, hidden),
        "feed_forward.w1": (inner, hidden),
        "feed_forward.w2": (hidden, inner),
        "feed_forward.w3": (inner, hidden),
        "attention_norm": (hidden,),
        "ffn_norm": (hidden,),
    }
    if key_value % width or width % 2:
        raise checkpoint.error(f"heads of {width} do not divide {key_value} rows of keys into pairs; correct --heads")
    weights = {"model.embed_tokens.weight": checkpoint.take("tok_embeddings.weight", vocab, hidden)}
    for layer in range(layers):
        for ours, theirs in _LAYER.items():
            tensor = checkpoint.take(f"layers.{layer}.{theirs}.weight", *shapes[theirs])
            rotated = theirs in ("attention.wq", "attention.wk")
            weights[f"model.layers.{layer}.{ours}.weight"] = to_halves(tensor, width) if rotated else tensor
    weights["model.norm.weight"] = checkpoint.take("norm.weight", hidden)
    config = llama_config(
        qk_norm=False,
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value // width,
        head_dim=width,
        max_position_embeddings=context,
        rms_norm_eps=number(checkpoint, settings, "norm_eps", 1e-5),
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    return with_output(StockModel(NAME, config, weights, begins=True), checkpoint, "output.weight")
