"""Bits per byte against a slow reference that scores one token at a time."""

import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.common.errors import UserError
from training.eval.measures.bits_per_byte import bits_per_byte, windows

CONTEXT, END_OF_TEXT = 8, 0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,  # far from uniform, so that a misplaced token shows
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, 32, 45).astype(np.uint16)


@torch.inference_mode()
def reference(model, tokens, stride):
    """Nats of the stream: each token alone, after exactly the tokens its window shows it."""
    stream = [END_OF_TEXT, *tokens.tolist()]
    nats = 0.0
    for position in range(1, len(stream)):
        # The first window that reaches this token starts at a multiple of the stride.
        start = max(0, math.ceil((position - CONTEXT) / stride)) * stride
        logits = model(input_ids=torch.tensor([stream[start:position]]), use_cache=False).logits[0, -1]
        nats -= torch.log_softmax(logits.double(), dim=-1)[stream[position]].item()
    return nats


@pytest.mark.parametrize("stride", [8, 4, 3, 1])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_equals_token_by_token_scoring(model, tokens, stride, batch_size):
    result = bits_per_byte(model, tokens, 100, END_OF_TEXT, CONTEXT, stride, batch_size)
    expected = reference(model, tokens, stride)
    assert result["value"] == pytest.approx(expected / math.log(2) / 100, rel=1e-5)
    assert result["nats_per_token"] == pytest.approx(expected / 45, rel=1e-5)


def test_no_overlap_is_the_default(model, tokens):
    result = bits_per_byte(model, tokens, 100, END_OF_TEXT, CONTEXT)
    assert result["stride"] == CONTEXT
    assert result["value"] == bits_per_byte(model, tokens, 100, END_OF_TEXT, CONTEXT, stride=CONTEXT)["value"]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 45])
@pytest.mark.parametrize("stride", [8, 5, 1])
def test_every_token_is_scored_once(length, stride):
    scored = [place for _, scored_from, end in windows(length, 8, stride) for place in range(scored_from, end)]
    assert scored == list(range(length))
    assert all(end - start <= 8 and start <= scored_from for start, scored_from, end in windows(length, 8, stride))


def test_a_stream_shorter_than_the_context(model):
    tokens = np.array([5, 3], dtype=np.uint16)
    result = bits_per_byte(model, tokens, 2, END_OF_TEXT, CONTEXT)
    assert result["nats_per_token"] * 2 == pytest.approx(reference(model, tokens, CONTEXT), rel=1e-5)


def test_bf16_is_close(model, tokens):
    exact = bits_per_byte(model, tokens, 100, END_OF_TEXT, CONTEXT)["value"]
    assert bits_per_byte(model, tokens, 100, END_OF_TEXT, CONTEXT, bf16=True)["value"] == pytest.approx(exact, rel=0.02)


def test_refuses_an_empty_split_and_a_stride_that_skips(model, tokens):
    with pytest.raises(UserError, match="empty"):
        bits_per_byte(model, tokens[:0], 0, END_OF_TEXT, CONTEXT)
    with pytest.raises(UserError, match="stride"):
        bits_per_byte(model, tokens, 100, END_OF_TEXT, CONTEXT, stride=CONTEXT + 1)
