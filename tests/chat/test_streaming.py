"""Characters leave the streamer whole, at once, and as the tokenizer would decode the answer in one piece."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_stages import LINES, VOCAB_SIZE
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from modeling_scratch.tokenization_scratch import ScratchTokenizer, byte_characters
from training.chat.streaming import PENDING, CharacterStreamer
from training.model_io.tokenizers import UNDECODED

# Characters of two, three and four bytes; one of seven code points; a mark on its own; scripts without spaces.
TEXT = "naïve 中文字、カタカナ 한국어 ไทย 👩‍👩‍👧‍👦🇪🇺 e\u0301 𝔘\n\tend"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    ScratchTokenizer.train(LINES, VOCAB_SIZE).save(folder)
    return AutoTokenizer.from_pretrained(folder)


def stream(tokenizer, ids, prompt=(5, 6)) -> tuple[list[str], str]:
    """What was handed on after each token, and after the last."""
    said: list[str] = []
    streamer = CharacterStreamer(tokenizer, said.append)
    streamer.put(torch.tensor([prompt]))
    after = []
    for token in ids:
        streamer.put(torch.tensor([token]))
        after.append("".join(said))
    streamer.end()
    streamer.flush()
    assert all(said)
    assert streamer.text() == tokenizer.decode(ids, skip_special_tokens=True)
    return after, "".join(said)


def test_every_character_at_its_last_byte(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert len(ids) > 1.5 * len(TEXT)
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    so_far, after = b"", stream(tokenizer, ids)[0]
    for token, shown in zip(tokenizer.convert_ids_to_tokens(ids), after, strict=True):
        so_far += bytes(byte_of[character] for character in token)
        assert shown == so_far.decode(errors="ignore")  # all that is complete
    assert after[-1] == TEXT


@given(ids=st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=40))
def test_any_tokens(tokenizer, ids):
    """Broken bytes and special tokens too. At most what `PENDING` bytes may still become is held back."""
    after, whole = stream(tokenizer, ids)
    for number, shown in enumerate(after, start=1):
        decoded = tokenizer.decode(ids[:number], skip_special_tokens=True)
        assert decoded.startswith(shown) and set(decoded[len(shown) :]) <= {UNDECODED}
        assert len(decoded) - len(shown) <= PENDING and whole.startswith(shown)
    assert whole == tokenizer.decode(ids, skip_special_tokens=True)


def test_what_is_no_character_shows_when_nothing_can_mend_it(tokenizer):
    (broken,) = tokenizer.convert_tokens_to_ids([byte_characters()[0xFF]])
    ids = [broken] * 5 + tokenizer.encode("a") + tokenizer.encode("中")[:-1]
    after, whole = stream(tokenizer, ids)
    assert after[4] == UNDECODED * (5 - PENDING) and after[5] == UNDECODED * 5 + "a"
    assert after[-1] == after[5] and whole == UNDECODED * 5 + "a" + UNDECODED


def test_a_tokenizer_with_spaces_before_words_and_bytes_for_the_rest():
    """As Llama's and Mistral's: decoding drops the first space, and every byte of a torn character is one U+FFFD."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "▁cat", "s", "▁"]
    backend = Tokenizer(
        models.BPE(vocab={word: place for place, word in enumerate(words)}, merges=[], unk_token=words[0])
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    letters = [f"<0x{byte:02X}>" for byte in "é中👧".encode()]
    ids = tokenizer.convert_tokens_to_ids(["▁a", "▁cat", "s", "▁", *letters, "▁cat", "▁a"])
    after, whole = stream(tokenizer, ids)
    assert whole == "a cats é中👧 cat a"
    assert [after[place] for place in (0, 1, 2)] == ["a", "a cat", "a cats"]
    assert not any(UNDECODED in shown for shown in after)


def test_an_answer_in_two_calls(tokenizer):
    """Each call of `generate` begins with its prompt; a character may begin in one and end in the next."""
    said: list[str] = []
    streamer = CharacterStreamer(tokenizer, said.append)
    first, *rest = tokenizer.encode("中")
    for tokens in ([first], rest):
        streamer.put(torch.tensor([[7, 8, 9]]))
        for token in tokens:
            streamer.put(torch.tensor([token]))
        streamer.end()
    assert said == ["中"] and streamer.ids == [first, *rest]
