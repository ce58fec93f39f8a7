"""Conversion to and from Llama, Qwen3 and GPT-2: through saved directories, with equal logits, or a clear rejection."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from tiny_model import SLIDING, build, logits, stir, tokens
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen3Config

from modeling_scratch import (
    ScratchConfig,
    ScratchForCausalLM,
    ScratchForSequenceClassification,
    ScratchForTokenClassification,
)
from modeling_scratch.conversion_scratch import from_stock, scratch_config, stock_config, to_stock
from training.model_io.model_folder import read_weights

STOCK = {"llama": LlamaConfig, "qwen3": Qwen3Config, "gpt2": GPT2Config}

# In fp32. Llama and Qwen3 do the same operations in the same order; GPT-2 has its matrices the other way round.
ATOL = 1e-5

SIZES = {
    "vocab_size": 97,  # odd: no multiple of anything
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 3,
    "eos_token_id": 5,
}
ROPES = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "original_max_position_embeddings": 32,
    },
}


def grid() -> dict[str, tuple[str, dict]]:
    """Name to architecture and options, which Llama and Qwen3 call as we do."""
    cases = {}
    for heads, key_value_heads in (("mha", 4), ("gqa", 2), ("mqa", 1)):
        for tied in (False, True):
            for bias in (False, True):
                options = {"num_key_value_heads": key_value_heads, "tie_word_embeddings": tied, "attention_bias": bias}
                name = f"{heads}{'-tied' * tied}{'-bias' * bias}"
                cases[f"llama-{name}"] = "llama", options | {"mlp_bias": bias}
                if tied == bias:  # half of them: the network around q_norm and k_norm is Llama's
                    # A head_dim that is not hidden_size / num_attention_heads.
                    cases[f"qwen3-{name}"] = "qwen3", options | {"head_dim": 16}
    for kind, values in ROPES.items():
        rope = {"rope_type": kind, "rope_theta": 500.0} | values
        cases[f"llama-{kind}"] = "llama", {"num_key_value_heads": 2, "rope_parameters": rope}
    cases["llama-theta"] = "llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "norm_eps": 0.1}
    cases["llama-eos-list"] = "llama", {"eos_token_id": [5, 6]}
    cases["qwen3-yarn"] = "qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0} | ROPES["yarn"]}
    cases["qwen3-sliding"] = "qwen3", SLIDING
    cases["gpt2-tied"] = "gpt2", {}
    cases["gpt2-exact"] = "gpt2", {"mlp_type": "gelu_exact"}
    cases["gpt2"] = "gpt2", {"tie_word_embeddings": False, "norm_eps": 0.1}
    cases["gpt2-single-head"] = "gpt2", {"num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 30}
    return cases


GRID = grid()


def in_stock_words(kind: str, options: dict):
    """The configuration as the stock class's own documentation has it, without our conversion."""
    options = SIZES | options
    if kind != "gpt2":
        options["rms_norm_eps"] = options.pop("norm_eps", 1e-5)
        return STOCK[kind](use_sliding_window="sliding_window" in options, **options)
    return GPT2Config(
        vocab_size=options["vocab_size"],
        n_positions=options["max_position_embeddings"],
        n_embd=options["hidden_size"],
        n_layer=options["num_hidden_layers"],
        n_head=options["num_attention_heads"],
        n_inner=options["intermediate_size"],
        layer_norm_epsilon=options.get("norm_eps", 1e-5),
        tie_word_embeddings=options.get("tie_word_embeddings", True),
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=5,
    )


def saved_stock(kind, options, folder):
    """A stock model in a folder, with weights large enough that every one of them shows."""
    torch.manual_seed(0)
    model = stir(AutoModelForCausalLM.from_config(in_stock_words(kind, options))).eval()
    model.save_pretrained(folder)
    return model


def assert_same(ours, stock, length=20):
    """Equal logits, and 64 equal tokens from the cache."""
    prompt = tokens(2, length)
    with torch.no_grad():
        difference = (logits(ours, prompt) - logits(stock, prompt)).abs().max().item()
    assert difference <= ATOL
    greedy = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
    assert torch.equal(ours.generate(prompt, **greedy), stock.generate(prompt, **greedy))


@pytest.mark.parametrize("case", GRID)
def test_out(case, tmp_path):
    """Ours to stock. The Auto classes open the directory as the stock class, every tensor in its place."""
    kind, options = GRID[case]
    ours = build(kind, **(SIZES | options))
    to_stock(ours, kind).save_pretrained(tmp_path)
    stock, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert stock.config.model_type == kind and not any(report.values())
    assert type(stock).__module__ == f"transformers.models.{kind}.modeling_{kind}"
    assert not list(tmp_path.glob("*.py")) and "auto_map" not in (tmp_path / "config.json").read_text()
    assert_same(ours, stock)

    back = from_stock(stock.config, read_weights(tmp_path))
    assert back.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in back.state_dict().items())
    added = {"dtype": "float32", "_name_or_path": ""}
    assert back.config.to_dict() | added == ours.config.to_dict() | added


@pytest.mark.parametrize("case", GRID)
def test_in(case, tmp_path):
    """Stock to ours, from a configuration in the stock class's own words."""
    kind, options = GRID[case]
    stock = saved_stock(kind, options, tmp_path / "stock")
    from_stock(stock.config, read_weights(tmp_path / "stock")).save_pretrained(tmp_path / "ours")
    ours, report = ScratchForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    assert_same(ours, stock)

    back = to_stock(ours, kind).state_dict()
    assert back.keys() == stock.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in stock.state_dict().items())


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_change_with_the_length(kind):
    ours = build("llama", **SIZES, rope_parameters={"rope_type": kind, "rope_theta": 500.0} | ROPES[kind])
    assert_same(ours, to_stock(ours, "llama"), length=200)  # beyond max_position_embeddings


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", STOCK)
def test_the_dtype_stays(kind, dtype, tmp_path):
    ours = build(kind, **SIZES).to(dtype)
    to_stock(ours, kind).save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert stock.dtype == dtype
    back = from_stock(stock.config, read_weights(tmp_path))
    assert back.dtype == dtype
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in back.state_dict().items())


def test_of_several_dtypes_the_widest_holds_them_all():
    stock = to_stock(build("llama", **SIZES), "llama")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in stock.state_dict().items()}
    weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.float16)
    assert from_stock(stock.config, weights).dtype == torch.float32


@pytest.mark.parametrize(
    ("preset", "options", "to", "named"),
    [
        ("qwen3", {}, "llama", ["qk_norm is True", "it is a qwen3"]),
        ("llama", {}, "qwen3", ["qk_norm is False", "it is a llama"]),
        ("qwen3", {"mlp_bias": True}, "qwen3", ["mlp_bias is True"]),
        ("llama", SLIDING, "llama", ["sliding_window is 5"]),
        ("llama", {"mlp_type": "relu2"}, "llama", ["mlp_type is 'relu2'"]),
        ("llama", {"norm_type": "layer"}, "llama", ["norm_type is 'layer'"]),
        ("llama", {"position_type": "none"}, "llama", ["position_type is 'none'"]),
        ("llama", {"final_logit_softcapping": 15.0}, "llama", ["final_logit_softcapping is 15.0"]),
        ("llama", {"embedding_shortcut": True}, "llama", ["embedding_shortcut is True"]),
        ("llama", {"hidden_dropout": 0.1}, "llama", ["hidden_dropout is 0.1", "training only"]),
        ("llama", {"hidden_size": 30, "head_dim": 8}, "llama", ["hidden_size is 30"]),
        ("scratch", {}, "llama", ["mlp_type", "qk_norm", "final_logit_softcapping"]),
        ("gpt2", {"num_key_value_heads": 2}, "gpt2", ["num_key_value_heads is 2"]),
        ("gpt2", {"head_dim": 16}, "gpt2", ["head_dim is 16"]),
        ("gpt2", {"mlp_bias": False}, "gpt2", ["mlp_bias is False"]),
        ("gpt2", {"attention_bias": False}, "gpt2", ["attention_bias is False"]),
        ("gpt2", {"position_type": "sinusoidal"}, "gpt2", ["position_type is 'sinusoidal'"]),
        ("gpt2", SLIDING, "gpt2", ["sliding_window is 5"]),
    ],
)
def test_a_closed_door_out_names_the_dial(preset, options, to, named):
    with pytest.raises(ValueError) as caught:
        stock_config(build(preset, **(SIZES | options)).config, to)
    message = str(caught.value)
    assert all(word in message for word in named) and "\n" not in message


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (LlamaConfig(hidden_act="gelu"), "hidden_act is 'gelu'"),
        (Qwen3Config(hidden_act="relu"), "hidden_act is 'relu'"),
        (LlamaConfig(quantization_config={"quant_method": "fp8"}), "quantization_config"),
        (GPT2Config(activation_function="relu"), "activation_function is 'relu'"),
        (GPT2Config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx is True"),
        (GPT2Config(scale_attn_weights=False), "scale_attn_weights is False"),
        (GPT2Config(reorder_and_upcast_attn=True), "reorder_and_upcast_attn is True"),
        (GPT2Config(add_cross_attention=True), "add_cross_attention is True"),
        (GPT2Config(embd_pdrop=0.2), "embd_pdrop is 0.2"),
        (MistralConfig(), "model_type is 'mistral'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_closed_door_in_names_the_dial(config, named):
    with pytest.raises(ValueError, match=named):
        scratch_config(config)


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen3Config])
def test_rotating_a_part_of_each_head_is_refused(config_class):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    with pytest.raises(Exception, match="partial_rotary_factor must be 1, not 0.5"):
        scratch_config(config_class(rope_parameters=rope))


def changed(weights, name, tensor):
    weights = dict(weights)
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    return weights


@pytest.mark.parametrize(
    ("kind", "name", "tensor", "said"),
    [
        ("llama", "model.layers.1.mlp.up_proj.weight", None, "model.layers.1.mlp.up_proj.weight is missing"),
        ("llama", "lm_head.weight", None, "lm_head.weight is missing"),
        ("qwen3", "model.layers.0.self_attn.q_norm.weight", None, "q_norm.weight is missing"),
        ("gpt2", "transformer.h.0.attn.c_attn.bias", None, "transformer.h.0.attn.c_attn.bias is missing"),
        ("llama", "model.layers.2.mlp.up_proj.weight", torch.ones(1), "layers.2.mlp.up_proj.weight is not a tensor of"),
        ("llama", "model.layers.0.self_attn.q_proj.bias", torch.ones(32), "q_proj.bias is not a tensor of a llama"),
        ("gpt2", "transformer.h.0.attn.c_attn.weight", torch.ones(96, 32), r"shape \(96, 32\), not \(32, 96\)"),
        ("llama", "model.norm.weight", torch.ones(31), r"model.norm.weight has shape \(31,\), not \(32,\)"),
        ("llama", "model.norm.weight", torch.ones(32, dtype=torch.int8), "model.norm.weight is torch.int8"),
        ("gpt2", "lm_head.weight", torch.zeros(97, 32), "lm_head.weight is not transformer.wte.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(kind, name, tensor, said, tmp_path):
    stock = saved_stock(kind, {}, tmp_path)
    with pytest.raises(ValueError, match=said):
        from_stock(stock.config, changed(stock.state_dict(), name, tensor))


def test_a_checkpoint_as_the_first_gpt2_left_it(tmp_path):
    """Without the head and its prefix, and with the causal mask of each layer."""
    stock = saved_stock("gpt2", {}, tmp_path)
    weights = {name.removeprefix("transformer."): tensor for name, tensor in read_weights(tmp_path).items()}
    for layer in range(2):
        weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 128, 128, dtype=torch.uint8).tril()
        weights[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    assert_same(from_stock(stock.config, read_weights(tmp_path)), stock)


def test_a_checkpoint_as_the_first_llama_left_it(tmp_path):
    """With the rotation's frequencies in each layer."""
    stock = saved_stock("llama", {}, tmp_path)
    weights = read_weights(tmp_path) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert_same(from_stock(stock.config, weights), stock)


def test_the_tied_matrix_may_be_there_twice(tmp_path):
    stock = saved_stock("llama", {"tie_word_embeddings": True}, tmp_path)
    weights = read_weights(tmp_path)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    ours = from_stock(stock.config, weights)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert_same(ours, stock)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_a_classifier_there_and_back(kind, labels, tmp_path):
    """A reward model has one label. Equal scores as a stock class, equal tensors back."""
    names = [f"label {number}" for number in range(labels)]
    config = ScratchConfig.from_preset(kind, **SIZES)
    config.id2label, config.label2id = dict(enumerate(names)), {name: number for number, name in enumerate(names)}
    ours = stir(ScratchForSequenceClassification(config)).eval()
    stock = to_stock(ours, kind).eval()
    assert type(stock).__name__.endswith("ForSequenceClassification") and stock.config.id2label == config.id2label
    input_ids = tokens(2, 9)
    with torch.no_grad():
        expected = ours(input_ids).logits
        torch.testing.assert_close(stock(input_ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert expected.shape == (2, labels)
    stock.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    back = from_stock(read, read_weights(tmp_path))
    assert type(back) is ScratchForSequenceClassification and back.config.label2id == config.label2id
    weights = ours.state_dict()
    assert back.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.state_dict().items())


def test_other_heads_do_not_convert():
    with pytest.raises(ValueError, match="ScratchForTokenClassification; only language models and sequence class"):
        to_stock(ScratchForTokenClassification(ScratchConfig.from_preset("llama", **SIZES)), "llama")


@pytest.mark.parametrize("name", ["pad_token_id", "bos_token_id", "eos_token_id"])
def test_a_negative_token_id_means_that_there_is_none(name):
    """As many checkpoints have it, of models that were converted early: `pad_token_id: -1`."""
    found = scratch_config(LlamaConfig(**{**SIZES, name: -1}))
    assert getattr(found, name) is None
    with pytest.raises(StrictDataclassError):
        scratch_config(LlamaConfig(**{**SIZES, name: 97}))
