"""Checkpoints under the names of other projects, made from stock models with the same network."""

import json
import struct
from pathlib import Path

import torch
import yaml
from tiny_model import stir
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCAB, HIDDEN, INNER, LAYERS, HEADS, CONTEXT = 60, 32, 48, 2, 4, 24


def stock_gpt2(activation="gelu_new", biases=True, tied=True):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": CONTEXT}
    config = GPT2Config(**sizes, activation_function=activation, tie_word_embeddings=tied)
    config.bos_token_id = config.eos_token_id = None
    model = stir(GPT2LMHeadModel(config)).eval()
    if not biases:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.data.zero_()
    return model


def stock_llama(qwen3=False, tied=False, **options):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": HEADS, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
    sizes |= {"head_dim": 16 if qwen3 else 8, "rms_norm_eps": 1e-6 if qwen3 else 1e-5, "tie_word_embeddings": tied}
    sizes |= {"bos_token_id": None, "eos_token_id": None} | options
    config, model = (Qwen3Config, Qwen3ForCausalLM) if qwen3 else (LlamaConfig, LlamaForCausalLM)
    return stir(model(config(**sizes))).eval()


def gpt_tensors(stock, biases=True):
    """As nanoGPT and minGPT have them: (out, in)."""
    tensors = {}
    for name, tensor in stock.state_dict().items():
        if biases or not name.endswith("bias"):
            tensors[name] = tensor.T.contiguous() if ".c_" in name and tensor.ndim == 2 else tensor.clone()
    return tensors


def nanogpt(stock, biases=True, prefix="", **changes):
    names = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": HIDDEN, "block_size": CONTEXT, "vocab_size": VOCAB}
    tensors = {prefix + name: tensor for name, tensor in gpt_tensors(stock, biases).items()}
    beside = {
        "optimizer": {"state": {}},
        "iter_num": 3,
        "best_val_loss": torch.tensor(1.0),
        "config": {"device": "cpu"},
    }
    return {"model": tensors, "model_args": names | {"bias": biases, "dropout": 0.1} | changes} | beside


def mingpt(stock):
    masks = {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, CONTEXT, CONTEXT) for layer in range(LAYERS)}
    return gpt_tensors(stock) | masks


def book_gpt(stock, biases=True):
    """LLMs-from-scratch's GPTModel."""
    tensors, ours = {}, stock.state_dict()
    names = {"transformer.wte.weight": "tok_emb.weight", "transformer.wpe.weight": "pos_emb.weight"}
    names |= {"lm_head.weight": "out_head.weight"}
    for layer in range(LAYERS):
        here, there = f"transformer.h.{layer}", f"trf_blocks.{layer}"
        for kind in ("weight", "bias"):
            joined = ours[f"{here}.attn.c_attn.{kind}"]
            for part, name in zip(joined.chunk(3, dim=-1), ("query", "key", "value")):
                if kind == "weight" or biases:
                    tensors[f"{there}.att.W_{name}.{kind}"] = part.t().contiguous()
            for name, place in {
                "attn.c_proj": "att.out_proj",
                "mlp.c_fc": "ff.layers.0",
                "mlp.c_proj": "ff.layers.2",
            }.items():
                tensors[f"{there}.{place}.{kind}"] = ours[f"{here}.{name}.{kind}"].t().contiguous()
        tensors[f"{there}.att.mask"] = torch.ones(CONTEXT, CONTEXT)
    norms = {f"transformer.h.{n}.ln_{i}": f"trf_blocks.{n}.norm{i}" for n in range(LAYERS) for i in (1, 2)}
    for name, place in (norms | {"transformer.ln_f": "final_norm"}).items():
        names |= {f"{name}.weight": f"{place}.scale", f"{name}.bias": f"{place}.shift"}
    return tensors | {theirs: ours[name].clone() for name, theirs in names.items()}


def renamed(stock, names):
    """The tensors of a Llama or Qwen3 under other names, by the end of theirs."""
    tensors = {}
    for name, tensor in stock.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        tensors[name] = tensor.clone()
    return tensors


def book_llama(stock, norm="weight"):
    names = {"model.embed_tokens": "tok_emb", "lm_head": "out_head", "model.layers": "trf_blocks"}
    names |= {f"self_attn.{letter}_proj": f"att.W_{word}" for letter, word in zip("qkv", ("query", "key", "value"))}
    names |= {"self_attn.o_proj": "att.out_proj", "mlp.gate_proj": "ff.fc1", "mlp.up_proj": "ff.fc2"}
    names |= {"mlp.down_proj": "ff.fc3", "self_attn.q_norm.weight": "att.q_norm.scale"}
    names |= {"self_attn.k_norm.weight": "att.k_norm.scale", "input_layernorm.weight": f"norm1.{norm}"}
    names |= {"post_attention_layernorm.weight": f"norm2.{norm}", "model.norm.weight": f"final_norm.{norm}"}
    return renamed(stock, names)


def llama2c_tensors(stock):
    names = {
        "model.embed_tokens": "tok_embeddings",
        "lm_head": "output",
        "model.layers": "layers",
        "model.norm": "norm",
    }
    names |= {f"self_attn.{letter}_proj": f"attention.w{letter}" for letter in "qkvo"}
    names |= {"mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3"}
    names |= {"input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
    tensors = renamed(stock, names)
    for name, tensor in tensors.items():
        if name.endswith(("wq.weight", "wk.weight")):
            halves = tensor.view(-1, 2, 4, HIDDEN)  # (heads, half, pair, hidden)
            tensors[name] = halves.transpose(1, 2).reshape(-1, HIDDEN)
    return tensors


def llama2c(stock, **changes):
    names = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": 2, "vocab_size": VOCAB}
    return {"model": llama2c_tensors(stock), "model_args": names | {"max_seq_len": CONTEXT, "dropout": 0.0} | changes}


def llama2c_binary(stock, version, tied):
    """The bytes of a `.bin`, in the order that run.c reads."""
    tensors = llama2c_tensors(stock)

    def stacked(name):
        return [tensors[f"layers.{layer}.{name}.weight"] for layer in range(LAYERS)]

    sizes = [HIDDEN, INNER, LAYERS, HEADS, 2, VOCAB if tied or version else -VOCAB, CONTEXT]
    attention = [part for letter in "qkvo" for part in stacked(f"attention.w{letter}")]
    mlp = [part for number in "123" for part in stacked(f"feed_forward.w{number}")]
    embedding, norm, head = ([tensors[f"{name}.weight"]] for name in ("tok_embeddings", "norm", "output"))
    tables = [torch.zeros(2, CONTEXT, 4)]
    parts = [*embedding, *stacked("attention_norm"), *attention, *stacked("ffn_norm"), *mlp, *norm, *tables]
    header = struct.pack("<7i", *sizes)
    if version:
        parts = [*stacked("attention_norm"), *stacked("ffn_norm"), *norm, *embedding, *attention, *mlp]
        header = struct.pack("<Ii7iB", 0x616B3432, version, *sizes, tied).ljust(256, b"\0")
    return header + b"".join(part.numpy().tobytes() for part in parts + ([] if tied else head))


def litgpt(stock, interleaved=False, biases=False):
    names = {"model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "model.layers": "transformer.h"}
    names |= {"self_attn.o_proj": "attn.proj", "mlp.gate_proj": "mlp.fc_1", "mlp.up_proj": "mlp.fc_2"}
    names |= {"mlp.down_proj": "mlp.proj", "input_layernorm": "norm_1", "post_attention_layernorm": "norm_2"}
    names |= {"self_attn.q_norm": "attn.norm_q", "self_attn.k_norm": "attn.norm_k"}
    tensors = renamed(stock, names)
    for layer in range(LAYERS):
        for kind in ("weight", "bias") if biases else ("weight",):
            parts = [tensors.pop(f"transformer.h.{layer}.self_attn.{letter}_proj.{kind}") for letter in "qkv"]
            place = "attn.qkv"
            if interleaved:
                place, parts = (
                    "attn.attn",
                    [part for group in zip(*(part.chunk(2) for part in parts)) for part in group],
                )
            tensors[f"transformer.h.{layer}.{place}.{kind}"] = torch.cat(parts)
    return tensors


def litgpt_settings(**changes):
    settings = {"name": "tiny", "block_size": CONTEXT, "n_layer": LAYERS, "n_embd": HIDDEN, "n_head": HEADS}
    settings |= {"padded_vocab_size": VOCAB, "n_query_groups": 2, "head_size": 8, "intermediate_size": INNER}
    settings |= {
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "LLaMAMLP",
        "parallel_residual": False,
        "norm_eps": 1e-5,
    }
    settings |= {
        "rotary_percentage": 1.0,
        "rope_base": 10000,
        "norm_qk": False,
        "bias": False,
        "scale_embeddings": False,
    }
    return settings | changes


def write(file, content, settings=None):
    """Write a checkpoint and, beside it, its settings by the name of a file."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    for name, values in (settings or {}).items():
        dumped = json.dumps(values) if name.endswith(".json") else yaml.safe_dump(values)
        file.with_name(name).write_text(dumped)
    return file
