"""Bits per byte of parts of a text, against lm-eval's rolling log-likelihood and against the whole."""

import math
import random

import numpy as np
import pytest

from training.common.errors import UserError
from training.data.shards import TokenShards
from training.eval.measures.bits_per_byte import measure_split
from training.eval.measures.likelihood import sum_nats, windows
from training.eval.measures.texts import PIECE, measure_text, pieces, read_texts

DRAW = random.Random(0)
# No two windows alike: lm-eval takes those that are for one, and slices them wrongly.
LINES = "".join(" ".join(DRAW.choices(["the cat", "sat", "naïve", "on a mat", "café"], k=9)) + "\n" for _ in range(80))
TEXTS = ["short", LINES, "".join(DRAW.choices("abcdefgh", k=900)), "é" + "".join(map(chr, range(200, 300)))]


def test_equals_lm_evals_rolling_loglikelihood(tokenizer, tiny_model):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, context = tiny_model(), 64
    lm = HFLM(model, tokenizer=tokenizer, batch_size=64, max_length=context)
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in TEXTS]
    expected = [-loglikelihood / math.log(2) for loglikelihood in lm.loglikelihood_rolling(requests, disable_tqdm=True)]
    figure, _ = measure_text(model, tokenizer, TEXTS, "books", context, batch_size=3)
    size = sum(len(text.encode()) for text in TEXTS)
    assert figure.value == pytest.approx(sum(expected) / size, rel=1e-5)
    assert (figure.details["bytes"], figure.details["tokens"]) == (size, size)  # a token a byte
    for text, bits in zip(TEXTS, expected):
        alone, outcomes = measure_text(model, tokenizer, [text], "books", context)
        assert alone.value * len(text.encode()) == pytest.approx(bits, rel=1e-5)
        assert sum(outcome.scores["bits per byte"] * outcome.weight for outcome in outcomes) == pytest.approx(bits)


def test_special_tokens_that_a_text_names_are_text(tokenizer, tiny_model):
    """As one token each they would cost the bits of one byte."""
    text = "A turn ends with <|im_end|>, and a text with <|endoftext|>."
    figure, _ = measure_text(tiny_model(), tokenizer, [text], "books", 256)
    assert figure.details["tokens"] == figure.details["bytes"] == len(text)


def test_items_are_pieces_cut_at_line_ends():
    text = LINES
    ends = pieces(text)
    starts = [0, *ends]
    assert "".join(text[a:b] for a, b in zip(starts, ends)) == text and ends[-1] == len(text)
    assert all(text[end - 1] == "\n" and PIECE < end - start < PIECE + 100 for start, end in zip(starts, ends[:-1]))
    assert pieces("x" * 9000) == [9000] and pieces("short\n") == [6]


def test_items_do_not_depend_on_the_model(tokenizer, tiny_model):
    """A piece has the same name and weight, and its bits those of its own tokens."""
    results = [measure_text(tiny_model(seed=seed), tokenizer, TEXTS, "a", 64)[1] for seed in (0, 1)]
    first, second = ([(outcome.item, outcome.weight) for outcome in outcomes] for outcomes in results)
    assert first == second and len({item for item, _ in first}) == len(first) > 4
    assert results[0][1].scores != results[1][1].scores
    assert sum(weight for _, weight in first) == sum(len(text.encode()) for text in TEXTS)


def test_a_split_by_documents_is_the_split(tiny_model):
    draw = np.random.default_rng(0)
    documents = [[*draw.integers(4, 260, length).tolist(), 0] for length in (1, 30, 4, 100, 55)]
    tokens = np.array([token for document in documents for token in document], dtype=np.uint16)
    shards = TokenShards(tokens, np.cumsum([len(document) for document in documents]), 400, 260)
    model = tiny_model()
    figure, outcomes = measure_split(model, shards, context=16, batch_size=3)
    nats = sum_nats(model, tokens, windows(len(tokens), 16), np.array([len(tokens)]), prefix=0).item()
    assert figure.value == pytest.approx(nats / math.log(2) / 400, rel=1e-6)
    assert figure.details["nats_per_token"] == pytest.approx(nats / len(tokens), rel=1e-6)
    assert figure.n == len(outcomes) == 5
    assert sum(outcome.scores["bits per byte"] * outcome.weight for outcome in outcomes) / 400 == pytest.approx(
        figure.value
    )


def test_files_and_what_cannot_be_measured(tokenizer, tiny_model, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": ""}\n{"text": "two"}\n')
    assert read_texts(str(tmp_path / "a.jsonl"), "texts.a") == ["one", "two"]
    (tmp_path / "a.txt").write_text("all of it\n\nin one")
    assert read_texts(str(tmp_path / "a.txt"), "texts.a") == ["all of it\n\nin one"]
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"tex\n')
    with pytest.raises(UserError, match="b.jsonl:2"):
        read_texts(str(tmp_path / "b.jsonl"), "texts.b")
    (tmp_path / "c.jsonl").write_text('{"body": "one"}\n')
    with pytest.raises(UserError, match="no column 'text'"):
        read_texts(str(tmp_path / "c.jsonl"), "texts.c")
    (tmp_path / "d.txt").write_text(" \n")
    with pytest.raises(UserError, match="'texts.d': .*d.txt holds no text"):
        read_texts(str(tmp_path / "d.txt"), "texts.d")


def test_a_tokenizer_that_cannot_write_the_text_is_refused(tiny_model):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<eos>": 0, "[UNK]": 1, "cat": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    lossy = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="<eos>")
    with pytest.raises(UserError, match=r"'texts.a': .*\(such as 'dog'\)"):
        measure_text(tiny_model(), lossy, ["cat dog"], "a", 16)
