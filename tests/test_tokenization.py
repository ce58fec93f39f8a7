"""The from-scratch tokenizer against the Rust library: the same merges, the same tokens, the same text back."""

import inspect
import json
import random
import textwrap
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer

from modeling_scratch.tokenization_base import SPECIAL_TOKENS, use_version_4_names
from modeling_scratch.tokenization_character import CharacterTokenizer
from modeling_scratch.tokenization_scratch import MINIMUM_COUNT, ScratchTokenizer, byte_characters, merge_pair

MULTILINGUAL = """\
The quick brown fox doesn't jump over 12345678 lazy dogs; naïve café-goers shrug.
Der Fuchs läuft schnell über die Straße, und die Füchsin läuft schneller über größere Straßen.
Быстрая лиса прыгает через ленивую собаку, а ленивая собака смотрит на быструю лису.
素早い狐が怠け者の犬を飛び越える。怠け者の犬は素早い狐を見ている。
तेज़ लोमड़ी आलसी कुत्ते के ऊपर कूदती है, और आलसी कुत्ता तेज़ लोमड़ी को देखता है।
الثعلب السريع يقفز فوق الكلب الكسول، والكلب الكسول ينظر إلى الثعلب السريع.
🦊🦊 jumps over 🐶, e\u0301 is two code points, and\u00a0spaces\u2003differ.\r\n\ttabs too\r\n
"""


def python_source() -> str:
    return "".join(inspect.getsource(module) for module in (textwrap, json, json.decoder, random, inspect))


def noise() -> str:
    """Characters of all kinds, some again and again, with runs of one character (whose pairs overlap themselves)."""
    draw = random.Random(7)
    few = [chr(draw.choice((draw.randrange(0x20, 0x180), draw.randrange(0x1F300, 0x1F600)))) for _ in range(40)]
    runs = (draw.choice(few) * draw.choice((1, 1, 1, 2, 3, 5)) for _ in range(6000))
    return "".join(runs) + "".join(map(chr, range(0x300)))


TEXTS = {"python": python_source, "multilingual": lambda: MULTILINGUAL, "noise": noise}


@pytest.fixture(scope="module")
def tokenizer() -> ScratchTokenizer:
    return ScratchTokenizer.train([python_source(), MULTILINGUAL], 1000)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder, model_max_length=512)
    return folder


@pytest.fixture(scope="module")
def saved(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", TEXTS)
def test_merges_are_those_of_the_rust_trainer(kind):
    texts = TEXTS[kind]().splitlines(keepends=True)
    ours = ScratchTokenizer.train(texts, 900)
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = ours.to_backend().pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=900,
        min_frequency=MINIMUM_COUNT,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(texts, trainer)
    model = json.loads(rust.to_str())["model"]
    assert len(ours.merges) > 150
    assert ours.merges == [tuple(merge) for merge in model["merges"]]
    assert ours.vocab == model["vocab"]


def test_a_merge_by_hand():
    # "hug" 3 times, "pug" twice: (u, g) occurs 5 times, then (h, ug) 3 times, then (p, ug) twice, then nothing repeats.
    tokenizer = ScratchTokenizer.train(["hug\nhug\nhug\npug\npug\nx"], 300)
    assert tokenizer.merges == [("u", "g"), ("h", "ug"), ("p", "ug")]
    assert [tokenizer.tokens[index] for index in tokenizer.encode("hugs")] == ["hug", "s"]
    assert len(tokenizer) == 4 + 256 + 3


def test_merge_pair_takes_the_leftmost_of_overlapping_pairs():
    assert merge_pair([5, 5, 5, 6, 5, 5], (5, 5), 9, 1, Counter())[0] == [9, 5, 6, 9]
    assert merge_pair([], (5, 5), 9, 1, Counter()) == ([], set())


@given(st.lists(st.integers(0, 3), max_size=12), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(1, 9))
def test_merge_pair_keeps_the_counts_of_all_other_pairs(word, pair, count):
    counts = Counter({between: count * number for between, number in Counter(pairwise(word)).items()})
    merged, born = merge_pair(word, pair, 9, count, counts)
    recounted = {between: count * number for between, number in Counter(pairwise(merged)).items()}
    del counts[pair]  # never asked for again
    assert {between: number for between, number in counts.items() if number} == recounted
    assert {between for between in recounted if 9 in between} <= born


def test_byte_characters_are_printable_and_distinct():
    characters = byte_characters()
    assert len(set(characters)) == 256
    assert all(character.isprintable() and not character.isspace() for character in characters)
    assert set(characters) == set(pre_tokenizers.ByteLevel.alphabet())
    assert (characters[ord("A")], characters[ord(" ")], characters[ord("\n")]) == ("A", "Ġ", "Ċ")


def test_words_keep_indentation_words_and_digits_together(tokenizer):
    words = tokenizer.split("def f(x):\n        return  x.y == 123456\n\n")
    expected = ["def", " f", "(x", "):", "\n        ", "return", " ", " x", ".y", " ==", " ", "123", "456", "\n\n"]
    assert words == expected


any_text = st.text() | st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "<|", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "self", "é", "🦊", "007", "_"])
    | st.text(max_size=3)
).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=any_text)
def test_encode_equals_the_saved_tokenizer_and_decode_inverts_it(tokenizer, saved, text):
    ids = tokenizer.encode(text)
    assert ids == saved(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text == saved.decode(ids)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 999)))
def test_any_ids_decode_as_in_the_saved_tokenizer(tokenizer, saved, ids):
    assert tokenizer.decode(ids) == saved.decode(ids)


def test_lone_surrogates_are_refused(tokenizer):
    for use in (tokenizer.encode, lambda text: ScratchTokenizer.train(["fine", text], 300)):
        with pytest.raises(ValueError, match=r"half of a surrogate pair \(U\+D800\), which has no UTF-8"):
            use("a\ud800b")


def test_special_tokens(tokenizer, saved):
    assert [tokenizer.vocab[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert tokenizer.encode("x<|endoftext|><|im_end|>") == [tokenizer.vocab["x"], 0, 3]
    assert (saved.eos_token_id, saved.pad_token_id, saved.bos_token_id, saved.unk_token_id) == (0, 1, None, None)
    assert set(saved.all_special_tokens) == set(SPECIAL_TOKENS)
    assert saved.decode([2, tokenizer.vocab["x"], 3], skip_special_tokens=True) == "x"
    assert saved("x")["input_ids"] == [tokenizer.vocab["x"]]  # nothing is added by itself


def test_longest_special_token_wins():
    tokenizer = ScratchTokenizer([], ("<|a|>", "<|a|><|b|>"))
    assert tokenizer.encode("<|a|><|b|><|a|>") == [1, 0]


def test_save_and_load(tokenizer, folder, saved):
    loaded = ScratchTokenizer.load(folder)
    assert (loaded.vocab, loaded.merges, loaded.special_tokens) == (tokenizer.vocab, tokenizer.merges, SPECIAL_TOKENS)
    files = sorted(file.name for file in folder.iterdir())
    assert files == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert saved.is_fast and len(saved) == 1000 and saved.model_max_length == 512


def test_config_has_the_names_that_version_4_reads(saved, folder, tmp_path):
    saved.save_pretrained(tmp_path)
    use_version_4_names(tmp_path)
    for place in (folder, tmp_path):
        config = json.loads((place / "tokenizer_config.json").read_text())
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert config["additional_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
        assert "extra_special_tokens" not in config
    assert AutoTokenizer.from_pretrained(tmp_path).all_special_ids == saved.all_special_ids


def test_load_refuses_another_kind_of_tokenizer(folder):
    with pytest.raises(ValueError, match="holds a BPE tokenizer, not a WordLevel one"):
        CharacterTokenizer.load(folder)


def test_save_needs_the_special_tokens_of_the_template(tmp_path):
    with pytest.raises(ValueError, match="<|im_start|>"):
        ScratchTokenizer([], ("<|endoftext|>", "<|pad|>")).save(tmp_path)


def test_vocabulary_stops_where_no_pair_repeats():
    tokenizer = ScratchTokenizer.train(["abcd"], 5000)
    assert (len(tokenizer), tokenizer.merges) == (260, [])


def test_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 260 tokens"):
        ScratchTokenizer.train(["abcd"], 259)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Add."},
    {"role": "assistant", "content": "def add(a, b):\n    return a + b"},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Any time."},
]


def test_chat_template_renders_chatml(saved):
    assert saved.apply_chat_template(CHAT, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nAdd.<|im_end|>\n"
        "<|im_start|>assistant\ndef add(a, b):\n    return a + b<|im_end|>\n"
        "<|im_start|>user\nThanks<|im_end|>\n"
        "<|im_start|>assistant\nAny time.<|im_end|>\n"
    )
    assert saved.apply_chat_template(CHAT[1:2], tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_assistant_mask_covers_the_answers_and_their_end(saved):
    encoded = saved.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    marked = [index for index, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert saved.decode(marked) == "def add(a, b):\n    return a + b<|im_end|>Any time.<|im_end|>"


def test_prompt_tokens_begin_the_tokens_of_the_whole_chat(saved):
    prompt = saved.apply_chat_template(CHAT[:2], add_generation_prompt=True)["input_ids"]
    assert saved.apply_chat_template(CHAT)["input_ids"][: len(prompt)] == prompt


def test_character_level(tmp_path):
    tokenizer = CharacterTokenizer.train(["To be,\n", "é 🦊"])
    assert tokenizer.tokens == [*SPECIAL_TOKENS, *sorted("To be,\né🦊")]
    tokenizer.save(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    text = "be To,\n\n é🦊<|endoftext|>  b"
    ids = tokenizer.encode(text)
    assert len(ids) == 15 and ids == saved(text)["input_ids"] == CharacterTokenizer.load(tmp_path).encode(text)
    assert tokenizer.decode(ids) == text == saved.decode(ids)


def test_character_level_refuses_an_unknown_character(tmp_path):
    tokenizer = CharacterTokenizer.train(["To be,\n"])
    with pytest.raises(ValueError, match="the character 'z' is not in this character-level"):
        tokenizer.encode("zoo")
    tokenizer.save(tmp_path)
    with pytest.raises(Exception, match="UNK"):  # never dropped in silence
        AutoTokenizer.from_pretrained(tmp_path)("zoo")
