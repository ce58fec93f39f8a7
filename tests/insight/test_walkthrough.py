"""The steps of one head: every number is the model's, and they lead from one to the next."""

import dataclasses

import numpy as np
import pytest
import torch
from insight import write_record
from messages import refused
from tiny_model import ARCHITECTURES, build, tokens
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from training.insight.attention import seen_attention
from training.insight.walkthrough import PIECE, encode_text, striking_text, walk_through


class Words:
    """A tokenizer of whole words."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [len(word) for word in text.split()]}

    def decode(self, ids):
        return f" w{ids[0]}"


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=96, n_positions=64)).eval()


MODELS = {name: lambda options=options: build(**options) for name, options in ARCHITECTURES.items()} | {"GPT2": gpt2}
IDS = tokens(1, 9)[0].tolist()


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_the_model(name):
    model = MODELS[name]()
    walks = [walk_through(model, Words(), IDS, (1, head), name) for head in range(4)]
    walk, seen, outputs = walks[2], [], []
    with seen_attention(model, seen.append), torch.no_grad():
        hook = []
        model(torch.tensor([IDS]), use_cache=False)
        module = seen[1].module
        hook.append(module.register_forward_hook(lambda module, arguments, output: outputs.append(output[0])))
        states = model(torch.tensor([IDS]), use_cache=False, output_hidden_states=True).hidden_states
        hook[0].remove()
    close(walk.embedding, model.get_input_embeddings().weight[IDS].detach())
    close(walk.stream, states[1][0])
    close(walk.weights, seen[1].probabilities[0, 2].detach())
    close(walk.scores, walk.query @ walk.key.T * walk.scale)
    close(walk.mixed, walk.weights @ walk.value)
    assert walk.weights[walk.row, walk.column] == walk.weights[walk.row].max() and walk.row == 8
    projection = module.o_proj if hasattr(module, "o_proj") else module.c_proj
    bias = 0 if projection.bias is None else projection.bias.detach().numpy()
    close(sum(each.added for each in walks) + bias, outputs[0][0].detach(), 1e-4)


def test_heads_that_share_keys():
    walk = walk_through(build("llama"), Words(), IDS, (0, 3), "it")
    other = walk_through(build("llama"), Words(), IDS, (0, 2), "it")
    assert walk.sharing == 2 and (walk.key == other.key).all() and not (walk.query == other.query).all()
    assert walk.turned == ["RoPE"]


def test_a_sliding_window_is_a_mask():
    walk = walk_through(build(**ARCHITECTURES["sliding"]), Words(), IDS, (0, 0), "it")
    assert walk.seen.sum(1).tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 5]
    assert walk.turned == ["QK-norm", "RoPE"]


def test_attention_that_is_not_plain_is_refused():
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_logit_softcapping": 0.01, "pad_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    with refused("model", "Gemma2ForCausalLM", "softmax"):
        walk_through(model, Words(), IDS, (0, 0), "it")


@pytest.mark.parametrize(("words", "context", "most"), [(1, 64, 24), (25, 64, 24), (9, 8, 8)])
def test_a_text_too_short_or_too_long(words, context, most):
    with refused("text", f"{words} tokens", f"2 to {most} tokens"):
        encode_text("word " * words, Words(), context)


def test_the_piece_of_text_ends_where_a_head_is_sure(tmp_path):
    """A previous-token head, a head that looks 5 back at one place, and no held-out text."""
    record = write_record(tmp_path)
    ids = record.probes[1].token_ids
    assert striking_text(record, (0, 0)) == ids[:PIECE]
    snapshot = record.snapshot(64)
    snapshot.attention[1][0, 1, 20, 15] = 255
    record = dataclasses.replace(record)
    object.__setattr__(record, "snapshot", lambda step: snapshot)
    assert striking_text(record, (0, 1)) == ids[21 - PIECE : 21]
    del record.probes[1:], snapshot.attention[1:]
    assert striking_text(record, (0, 1)) is None
