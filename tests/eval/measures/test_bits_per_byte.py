"""Bits per byte against a slow reference that scores one token at a time."""

import math

import numpy as np
import pytest
import torch
from messages import refused
from transformers import LlamaConfig, LlamaForCausalLM

from training.data.shards import TokenShards
from training.eval.measures import bits_per_byte
from training.eval.measures.bits_per_byte import BitsPerByte, measure_split
from training.eval.measures.config import EvaluateConfig
from training.eval.measures.likelihood import windows

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


def shards(tokens, text_bytes=100):
    """Three documents, of which the last ends with the end of text."""
    stream = np.array([*tokens, END_OF_TEXT], dtype=np.uint16)
    return TokenShards(stream, np.array([len(stream) // 3, len(stream) // 2, len(stream)]), text_bytes, 32)


@torch.inference_mode()
def reference(model, tokens):
    """Nats of the stream: each token alone, after exactly the tokens its window shows it."""
    stream = [END_OF_TEXT, *tokens.tolist()]
    nats = 0.0
    for position in range(1, len(stream)):
        start = (position - 1) // CONTEXT * CONTEXT
        logits = model(input_ids=torch.tensor([stream[start:position]]), use_cache=False).logits[0, -1]
        nats -= torch.log_softmax(logits.double(), dim=-1)[stream[position]].item()
    return nats


@pytest.mark.parametrize("batch_size", [1, 4])
def test_equals_token_by_token_scoring(model, tokens, batch_size):
    split = shards(tokens)
    figure, outcomes = measure_split(model, split, CONTEXT, batch_size)
    expected = reference(model, split.tokens)
    assert figure.value == pytest.approx(expected / math.log(2) / 100, rel=1e-5)
    assert figure.details["nats_per_token"] == pytest.approx(expected / 46, rel=1e-5)
    assert (figure.details["tokens"], figure.details["bytes"], figure.details["context"]) == (46, 100, CONTEXT)
    assert figure.n == len(outcomes) == 3 and figure.unit == "bits per byte"


@pytest.mark.parametrize("length", [1, 7, 8, 9, 45])
def test_every_token_is_scored_once(length):
    scored = [place for _, scored_from, end in windows(length, 8) for place in range(scored_from, end)]
    assert scored == list(range(length))
    assert all(end - start <= 8 and start <= scored_from for start, scored_from, end in windows(length, 8))


def test_a_stream_shorter_than_the_context(model):
    split = TokenShards(np.array([5, END_OF_TEXT], dtype=np.uint16), np.array([2]), 2, 32)
    figure, _ = measure_split(model, split, CONTEXT)
    assert figure.details["nats_per_token"] * 2 == pytest.approx(reference(model, split.tokens), rel=1e-5)


def test_bf16_is_close(model, tokens):
    exact = measure_split(model, shards(tokens), CONTEXT)[0].value
    assert measure_split(model, shards(tokens), CONTEXT, bf16=True)[0].value == pytest.approx(exact, rel=0.02)


def test_refuses_an_empty_split(monkeypatch):
    empty = TokenShards(np.array([], dtype=np.uint16), np.array([], dtype=np.int64), 0, 32)
    monkeypatch.setattr(bits_per_byte, "open_shards", lambda folder, split: empty)
    measure = BitsPerByte(EvaluateConfig(output_dir="out", models={"m": "model"}, data="runs/data"))
    with refused("data", "runs/data", "empty"):
        measure.prepare()
