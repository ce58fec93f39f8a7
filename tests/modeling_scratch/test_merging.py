"""Words merged in rounds have the tokens of merging one pair at a time, and of the Rust library."""

import base64
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling_scratch import tokenization_scratch
from modeling_scratch.tokenization_scratch import ScratchTokenizer

DRAW = random.Random(0)
BASE64 = "".join(base64.b64encode(DRAW.randbytes(57)).decode() + "\n" for _ in range(2_000))
CHINESE = "".join(DRAW.choices([chr(code) for code in range(0x4E00, 0x4E40)], [1 / n for n in range(1, 65)], k=20_000))


@pytest.fixture(scope="module", params=["letters", "two letters", "bytes", "base64 and Chinese"])
def tokenizer(request):
    """Tokenizers of few letters have deep merges, and nearly every pair of theirs has a rank."""
    draw = random.Random(1)
    texts = {
        "letters": ["".join(draw.choices("abcdefgh ", k=20_000))],
        "two letters": ["".join(draw.choices("ab", k=2_000)) + "a" * 500],
        "bytes": [draw.randbytes(20_000).decode("latin-1")],
        "base64 and Chinese": [BASE64[:20_000], CHINESE],
    }
    return ScratchTokenizer.train(texts[request.param], 900)


def one_at_a_time(tokenizer, words):
    return [tuple(tokenizer._merge(tokenizer._byte_symbols(word))) for word in words]


any_bytes = st.binary(max_size=30).map(lambda data: data.decode("latin-1"))
few_letters = st.text("abc", max_size=40) | st.builds(str.__mul__, st.text("abcd", max_size=3), st.integers(0, 40))


@settings(max_examples=60, deadline=None)
@given(words=st.lists(few_letters | st.text(max_size=20) | any_bytes, min_size=1))
@example(words=["", "a", ""])
@example(words=["a" * length for length in range(20)])
def test_rounds_merge_as_one_pair_at_a_time(tokenizer, words):
    assert tokenizer._round_merger.merge(words) == one_at_a_time(tokenizer, words)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text("abc", min_size=2, max_size=300),
    words=st.lists(
        st.text("abc", max_size=60) | st.builds(str.__mul__, st.text("abc", max_size=3), st.integers(0, 30))
    ),
)
def test_rounds_of_any_vocabulary_merge_as_one_pair_at_a_time(text, words):
    """Of few letters, so that pairs overlap, wait for each other, and grow at both sides."""
    tokenizer = ScratchTokenizer.train([text], 400)
    assert tokenizer._round_merger.merge([text, *words]) == one_at_a_time(tokenizer, [text, *words])


def test_without_merges_words_are_their_bytes():
    tokenizer = ScratchTokenizer([])
    assert tokenizer.encode("é" * 2_000) == list(*one_at_a_time(tokenizer, ["é" * 2_000]))


TEXTS = {
    "base64": BASE64,
    "Chinese": CHINESE,
    "one letter": "a" * 99_999,
    "letters": "".join(DRAW.choices("abcdefgh", k=50_000)),
    "bytes": DRAW.randbytes(50_000).decode("latin-1"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_long_texts_are_encoded_as_by_the_rust_library(tokenizer, kind):
    assert tokenizer.encode(TEXTS[kind]) == tokenizer.to_backend().encode(TEXTS[kind]).ids


def test_the_way_of_merging_does_not_change_tokens(tokenizer, monkeypatch):
    text = TEXTS["letters"][:500] + " " + TEXTS["bytes"][:500]
    found = []
    for many in (0, 10**9):
        monkeypatch.setattr(tokenization_scratch, "MANY_CHARACTERS", many)
        found.append(ScratchTokenizer(tokenizer.ranks).encode(text))
    assert found[0] == found[1]
