"""Attention in blocks of queries equals eager attention in outputs and gradients, with padding, windows and caches."""

import pytest
import torch
from torch.testing import assert_close
from transformers.cache_utils import DynamicCache

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from training.common.operations import SHORTEST_BLOCK, block_length, keys_of_blocks
from training.machine.attention import BLOCKWISE

SEQ = 2 * SHORTEST_BLOCK + 20  # two whole blocks and a part of one


def model(**options):
    torch.manual_seed(0)
    config = ScratchConfig.from_preset(
        "qwen3", vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2 * SEQ, **options,
    )  # fmt: skip
    return ScratchForCausalLM(config)


@pytest.fixture
def input_ids():
    return torch.randint(3, 96, (2, SEQ), generator=torch.Generator().manual_seed(1))


def both(network, run):
    results = []
    for implementation in ("eager", BLOCKWISE):
        network.set_attn_implementation(implementation)
        network.zero_grad()
        results.append(run())
    return results


@pytest.mark.parametrize("options", [{}, {"sliding_window": 150}, {"qk_norm": False}], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_and_gradients_are_those_of_eager_attention(input_ids, options, padded):
    network, attention_mask = model(**options), torch.ones_like(input_ids)
    if padded:
        attention_mask[0, :140] = 0  # more than the first block

    def run():
        output = network(input_ids, attention_mask=attention_mask)
        output.logits[attention_mask.bool()].square().mean().backward()
        return output.logits[attention_mask.bool()], [each.grad.clone() for each in network.parameters()]

    (logits, gradients), (blockwise, blockwise_gradients) = both(network, run)
    assert_close(blockwise, logits, atol=1e-6, rtol=1e-5)
    assert_close(blockwise_gradients, gradients, atol=1e-6, rtol=1e-4)


def test_tokens_after_a_cache(input_ids):
    network = model().eval()

    @torch.no_grad()
    def run():
        cache = DynamicCache(config=network.config)
        network(input_ids[:, :60], past_key_values=cache)
        return network(input_ids[:, 60:], past_key_values=cache).logits

    assert_close(*both(network, run), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("seq", [1, 128, 129, 256, 513, 1024])
def test_the_planner_counts_the_scores_that_are_computed(seq):
    visible = torch.zeros(seq, seq)
    for start in range(0, seq, block_length(seq)):
        visible[start : start + block_length(seq), : start + block_length(seq)] = 1
    assert round(keys_of_blocks(seq) * seq) == visible.sum()
    assert visible.tril().sum() == seq * (seq + 1) / 2  # no key that a query may see is left out
