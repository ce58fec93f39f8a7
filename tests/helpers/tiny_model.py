"""A tiny model for tests, its variants by name (`ARCHITECTURES`), random tokens and logits."""

import torch

from modeling_scratch import ScratchConfig, ScratchForCausalLM

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
SLIDING = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}

# Every preset, and every kind of norm, position and MLP that no preset has, or not in this combination.
ARCHITECTURES = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama"},
    "qwen3": {"preset": "qwen3", "tie_word_embeddings": True},
    "scratch": {"preset": "scratch"},
    "sinusoidal": {"preset": "llama", "position_type": "sinusoidal", "norm_type": "layer", "mlp_type": "relu2"},
    "no positions": {"preset": "scratch", "position_type": "none", "mlp_type": "swiglu"},
    "rope in gpt2": {"preset": "gpt2", "position_type": "rope", "num_key_value_heads": 1},
    "sliding": {"preset": "qwen3"} | SLIDING,
}


def build(preset="llama", **options):
    """A tiny model whose every parameter matters: no zeros, no ones, attention far from uniform."""
    if preset == "scratch":  # with all that no other architecture has
        options = {"embedding_shortcut": True} | options
    torch.manual_seed(0)
    model = ScratchForCausalLM(ScratchConfig.from_preset(preset, **(SIZES | options)))
    return stir(model).eval()


@torch.no_grad()
def stir(model):
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def tokens(*shape, seed=0):
    return torch.randint(1, SIZES["vocab_size"], shape, generator=torch.Generator().manual_seed(seed))


def logits(model, input_ids, **kwargs):
    with torch.no_grad():
        return model(input_ids, **kwargs).logits
