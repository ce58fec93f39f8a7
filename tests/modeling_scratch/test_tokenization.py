"""The from-scratch tokenizer against the Rust library: the same merges, the same tokens, the same text back."""

import inspect
import json
import random
import textwrap
import unicodedata
from collections import Counter
from itertools import pairwise
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer

from modeling_scratch.tokenization_base import SPECIAL_TOKENS, use_version_4_names
from modeling_scratch.tokenization_character import CharacterTokenizer
from modeling_scratch.tokenization_scratch import (
    MINIMUM_COUNT,
    ScratchTokenizer,
    byte_characters,
    merge_pair,
    split_pattern,
)

MULTILINGUAL = """\
The quick brown fox doesn't jump over 12345678 lazy dogs; naïve café-goers shrug.
Der Fuchs läuft schnell über die Straße, und die Füchsin läuft schneller über größere Straßen.
Быстрая лиса прыгает через ленивую собаку, а ленивая собака смотрит на быструю лису.
素早い狐が怠け者の犬を飛び越える。怠け者の犬は素早い狐を見ている。
तेज़ लोमड़ी आलसी कुत्ते के ऊपर कूदती है, और आलसी कुत्ता तेज़ लोमड़ी को देखता है।
الثعلب السريع يقفز فوق الكلب الكسول، والكلب الكسول ينظر إلى الثعلب السريع.
🦊🦊 jumps over 🐶, e\u0301 is two code points, and\u00a0spaces\u2003differ.\r\n\ttabs too\r\n
"""


# Words drawn below with the frequencies that words have; also scripts that write without spaces.
WORDS = {
    "english": "the of and house water light between morning through window garden letter 1984 doesn't reading",
    "german": "der die und nicht über Straße größer Schlüssel Häuser zwischen Fenster möglich Frühstück läuft",
    "turkish": "bir ve için değil güneş çocuk ağaç kitap şehir gökyüzü İstanbul ışık öğrenci yağmur",
    "russian": "и в не что он на ночь улица фонарь книга человек город солнце дерево говорить",
    "greek": "και το να είναι θάλασσα ήλιος δέντρο βιβλίο άνθρωπος πόλη νύχτα δρόμος γράμμα",
    "hindi": "और के है में नहीं किताब पानी सूरज बच्चा शहर रात पेड़ आदमी घर लिखना",
    "arabic": "في من على كتاب ماء شمس مدينة ليل شجرة رجل بيت الطفل يكتب الكلمات",
    "thai": "และ ใน ที่ ไม่ หนังสือ น้ำ พระอาทิตย์ เมือง กลางคืน ต้นไม้ บ้าน เด็ก",
    "japanese": "の は を に 本 水 太陽 街 夜 木 人 家 子供 書く ありがとう カタカナ",
    "korean": "그리고 은 는 책 물 태양 도시 밤 나무 사람 집 아이 쓰다 고맙습니다",
}


def python_source() -> str:
    return "".join(inspect.getsource(module) for module in (textwrap, json, json.decoder, random, inspect))


def manual() -> str:
    """English prose, with tables and examples in it: Python's own manual."""
    return "".join(topics[name] for name in sorted(topics))[:200_000]


def languages() -> str:
    """Sentences without sense in ten languages and eight scripts; the rarer word has one over its rank of the draws."""
    draw = random.Random(11)
    sentences = []
    for number in range(1500):
        language = draw.choice(list(WORDS))
        words = WORDS[language].split()
        chosen = draw.choices(words, [1 / (rank + 1) for rank in range(len(words))], k=draw.randint(3, 14))
        space, stop = ("", "。") if language == "japanese" else ("" if language == "thai" else " ", ".")
        sentences.append(f"{number}\t{space.join(chosen)}{stop}")
    return "\n".join(sentences)


def names() -> str:
    """A table of characters of all planes with their names."""
    code_points = random.Random(5).sample(range(0x20, 0x31350), 12_000)
    rows = ((code_point, unicodedata.name(chr(code_point), None)) for code_point in code_points)
    return "\n".join(f"{chr(code_point)};{code_point:05X};{name}" for code_point, name in rows if name)


def noise() -> str:
    """Characters of all kinds, some again and again, with runs of one character (whose pairs overlap themselves)."""
    draw = random.Random(7)
    few = [chr(draw.choice((draw.randrange(0x20, 0x180), draw.randrange(0x1F300, 0x1F600)))) for _ in range(40)]
    runs = (draw.choice(few) * draw.choice((1, 1, 1, 2, 3, 5)) for _ in range(6000))
    return "".join(runs) + "".join(map(chr, range(0x300)))


TEXTS = {
    "python": python_source,
    "manual": manual,
    "languages": languages,
    "names": names,
    "noise": noise,
    "few": lambda: MULTILINGUAL,
}
OPTIONS = [{}, {"digits": 1, "whitespace": "single"}, {"digits": 2}]


@pytest.fixture(scope="module", params=OPTIONS[:2], ids=["default", "split"])
def tokenizer(request) -> ScratchTokenizer:
    return ScratchTokenizer.train([python_source(), MULTILINGUAL], 1000, **request.param)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def saved(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", TEXTS)
def test_merges_are_those_of_the_rust_trainer(kind, options):
    texts = TEXTS[kind]().splitlines(keepends=True)
    ours = ScratchTokenizer.train(texts, 1200, **options)
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = ours.to_backend().pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=1200,
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
    assert len(tokenizer) == 8 + 256 + 3


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


def test_words_keep_indentation_words_and_digits_together():
    words = ScratchTokenizer([]).split("def f(x):\n        return  x.y == 123456\n\n")
    expected = ["def", " f", "(x", "):\n", "       ", " return", " ", " x", ".y", " ==", " ", "123", "456", "\n\n"]
    assert words == expected


def test_patterns_are_those_that_llama_cpp_knows():
    """As `llama-bpe` and `qwen2`: it recognizes them by name and has no other way to read a pattern."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    assert split_pattern() == pattern
    assert split_pattern(digits=1) == pattern.replace(r"\p{N}{1,3}", r"\p{N}")


def test_white_space_can_be_split_too():
    tokenizer = ScratchTokenizer([], digits=1, whitespace="single")
    words = tokenizer.split("if x == 42:\r\n    return  x")
    assert words == ["if", " x", " ==", " ", "4", "2", ":", "\r", "\n", " ", " ", " ", " return", " ", " x"]


@pytest.mark.parametrize(
    "option, message",
    [
        ({"digits": 4}, "'digits' must be one of 1, 2, 3, not 4"),
        ({"whitespace": "none"}, "'whitespace' must be one of runs, single, not 'none'"),
    ],
)
def test_unknown_options_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        ScratchTokenizer.train(["text"], 300, **option)


FRAGMENTS = [
    *SPECIAL_TOKENS,
    "<|",
    "|>",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\x0b",
    "\x1c",
    "\x85",
    "\u2028",
    "\ufeff",
]
FRAGMENTS += [
    "\u00a0",
    "self",
    "é",
    "e\u0301",
    "\u0301",
    "\u200d",
    "🦊",
    "👩‍👩‍👧",
    "007",
    "٣",
    "Ⅷ",
    "½",
    "_",
    "\0",
    "\x7f",
    "ſ",
    "ß",
]
# All planes, unassigned code points and private use among them, but not halves of surrogate pairs, which st.text leaves
# out; all control bytes; and fragments repeated until they are long words.
any_text = st.text() | st.lists(
    st.sampled_from(FRAGMENTS)
    | st.text(max_size=3)
    | st.characters(max_codepoint=0x1F)
    | st.builds(lambda text, times: text * times, st.sampled_from(FRAGMENTS) | st.text(max_size=2), st.integers(2, 400))
).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=any_text)
@example("")
@example(" ")
@example(" " * 100)
@example(bytes(range(32)).decode())
@example("".join(chr(code_point) for code_point in range(0x7F, 0x110000, 0x101) if not 0xD800 <= code_point < 0xE000))
def test_encode_equals_the_saved_tokenizer_and_decode_inverts_it(tokenizer, saved, text):
    ids = tokenizer.encode(text)
    assert ids == saved(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text == saved.decode(ids)


LONG_WORDS = {
    "one letter": "a" * 100_000,
    "a line": "=" * 100_000,
    "spaces": " " * 100_000,
    "line breaks": "\n" * 50_000,
    "combining marks": "\u0301" * 50_000,
    "letters": "".join(random.Random(0).choices("etaoinshrdlucmfwypvbgkjqxz", k=100_000)),
    "characters": "".join(random.Random(0).choices("人家本水夜木街", k=30_000)),
}


@pytest.mark.parametrize("kind", LONG_WORDS)
def test_words_of_any_length(tokenizer, saved, kind):
    """In a time that grows about as the length: 100,000 letters in tenths of a second, not in half a minute."""
    text = LONG_WORDS[kind]
    ids = tokenizer.encode(text)
    assert ids == saved(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 999)))
def test_any_ids_decode_as_in_the_saved_tokenizer(tokenizer, saved, ids):
    assert tokenizer.decode(ids) == saved.decode(ids)


def test_lone_surrogates_are_refused(tokenizer):
    for use in (tokenizer.encode, lambda text: ScratchTokenizer.train(["fine", text], 300)):
        with pytest.raises(ValueError, match=r"half of a surrogate pair \(U\+D800\), which has no UTF-8"):
            use("a\ud800b")


def test_special_tokens(tokenizer, saved):
    assert [tokenizer.vocab[token] for token in SPECIAL_TOKENS] == list(range(8))
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
    for attribute in ("vocab", "merges", "special_tokens", "added_tokens", "digits", "whitespace"):
        assert getattr(loaded, attribute) == getattr(tokenizer, attribute)
    files = sorted(file.name for file in folder.iterdir())
    assert files == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert saved.is_fast and len(saved) == 1000


ADDED = ["<tool>", "<tool> ", "<|tool|>", "🦊🦊", "ende<|endoftext|>", "unreasonabl"]
OLD = "self"  # a token already, which adding only cuts out of longer words


@pytest.fixture(scope="module")
def extended(folder, tmp_path_factory):
    """The saved tokenizer and ours, with the same tokens added later; and both saved and opened again."""
    theirs, ours = AutoTokenizer.from_pretrained(folder), ScratchTokenizer.load(folder)
    theirs.add_tokens([*ADDED, OLD])
    theirs.add_tokens(["<|mask|>"], special_tokens=True)
    ours.add_tokens([*ADDED, OLD])
    ours.add_tokens(["<|mask|>"], special=True)
    place = tmp_path_factory.mktemp("extended")
    theirs.save_pretrained(place / "theirs")
    ours.save(place / "ours")
    loaded = [ScratchTokenizer.load(place / name) for name in ("theirs", "ours")]
    return theirs, [ours, *loaded, AutoTokenizer.from_pretrained(place / "ours")]


def test_added_tokens_come_after_all_others(tokenizer, extended):
    theirs, others = extended
    for each in (theirs, *others):
        assert len(each) == len(tokenizer) + len(ADDED) + 1
        assert [each.decode([len(tokenizer) + place]) for place in range(len(ADDED) + 1)] == [*ADDED, "<|mask|>"]
    text = (python_source() + MULTILINGUAL).replace(OLD, "").replace("🦊🦊", "🦊")
    assert not any(token in text for token in ADDED)
    for each in others[:3]:
        assert each.encode(text) == tokenizer.encode(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*ADDED, *SPECIAL_TOKENS, "<|mask|>", OLD, "<", "tool", " ", "itself", "é"])).map("".join)
)
def test_added_tokens_are_found_as_transformers_finds_them(extended, text):
    theirs, (*ours, reopened) = extended
    expected = theirs(text)["input_ids"]
    assert reopened(text)["input_ids"] == expected
    for each in ours:
        assert each.encode(text) == expected
        assert each.decode(expected) == text == theirs.decode(expected)


@pytest.mark.parametrize("token, message", [("", "must not be empty"), ("naïve", "tell its characters from bytes")])
def test_tokens_that_could_not_be_read_back_are_not_added(tokenizer, token, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.add_tokens([token])
    assert token not in tokenizer.vocab


def test_added_tokens_that_look_at_their_surroundings_are_left_to_transformers(saved, folder, tmp_path):
    other = AutoTokenizer.from_pretrained(folder)
    other.add_tokens([AddedToken("<tool>", lstrip=True)])
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'<tool>' has single_word, lstrip or rstrip; use AutoTokenizer"):
        ScratchTokenizer.load(tmp_path)


def test_character_level_takes_added_tokens(tmp_path):
    tokenizer = CharacterTokenizer.train(["To be"])
    size = len(tokenizer)
    tokenizer.add_tokens(["be"])
    tokenizer.save(tmp_path)
    loaded, saved = CharacterTokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.encode("To be") == saved("To be")["input_ids"] == [*tokenizer.encode("To "), size]
    assert loaded.special_tokens == (*SPECIAL_TOKENS, "<|unknown|>")


def damage(content: dict, how: str) -> str:
    if how == "no model":
        del content["model"]
    elif how == "no merges":
        del content["model"]["merges"]
    elif how == "unknown merge":
        content["model"]["merges"][0] = ["never", "heard"]
    elif how == "another pattern":
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+"
    elif how == "another order":
        content["model"]["merges"].reverse()
    text = json.dumps(content)
    return {"truncated": text[:1000], "empty": "", "a list": "[]"}.get(how, text)


@pytest.mark.parametrize(
    "how, message",
    [
        ("truncated", "tokenizer.json is damaged, or was not written by this class"),
        ("empty", "tokenizer.json is damaged, or was not written by this class"),
        ("a list", "tokenizer.json is damaged, or was not written by this class"),
        ("no model", "tokenizer.json is damaged, or was not written by this class"),
        ("no merges", "tokenizer.json is damaged: its merges do not fit"),
        ("unknown merge", "tokenizer.json is damaged: its merges do not fit"),
        ("another pattern", "tokenizer.json splits text into words differently; use AutoTokenizer"),
        ("another order", "tokenizer.json orders its tokens differently; use AutoTokenizer"),
    ],
)
def test_load_says_what_is_wrong_with_a_file(folder, tmp_path, how, message):
    content = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(damage(content, how))
    with pytest.raises(ValueError) as error:
        ScratchTokenizer.load(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_config_has_the_names_that_version_4_reads(saved, folder, tmp_path):
    saved.save_pretrained(tmp_path)
    use_version_4_names(tmp_path)
    for place in (folder, tmp_path):
        config = json.loads((place / "tokenizer_config.json").read_text())
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert config["additional_special_tokens"] == list(SPECIAL_TOKENS[2:])
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
    assert (len(tokenizer), tokenizer.merges) == (264, [])


def test_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 264 tokens"):
        ScratchTokenizer.train(["abcd"], 263)


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


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"required": ["city"]}}}
CALLING = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Warm in Ulm and Köln?"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "reasoning_content": "Two cities.",
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}},
            {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}},
        ],
    },
    {"role": "tool", "name": "weather", "content": "21 C"},
    {"role": "tool", "name": "weather", "content": "19 C"},
    {"role": "assistant", "tool_calls": [{"name": "stop", "arguments": {}}]},
]


def test_chat_template_renders_tools_calls_results_and_reasoning(saved):
    """As Qwen3's template does, but for the results, and for the reasoning of earlier turns, which stays."""
    turns = (
        "<|im_start|>user\nWarm in Ulm and Köln?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nTwo cities.\n</think>\n\nLet me look.\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n21 C<|im_end|>\n<|im_start|>tool\n19 C<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call><|im_end|>\n'
    )
    assert saved.apply_chat_template(CALLING, tokenize=False) == "<|im_start|>system\nBe brief.<|im_end|>\n" + turns
    tools = (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "weather", "parameters": {"required": ["city"]}}}\n'
        "</tools>\n\nFor each function call, return a json object with function name and arguments within "
        '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
        "</tool_call><|im_end|>\n"
    )
    opening = f"<|im_start|>system\nBe brief.\n\n{tools}"
    assert saved.apply_chat_template(CALLING, tools=[WEATHER], tokenize=False) == opening + turns
    assert saved.apply_chat_template(CALLING[1:], tools=[WEATHER], tokenize=False) == (
        f"<|im_start|>system\n{tools}" + turns
    )


def test_each_turn_is_the_same_whatever_follows(saved):
    whole = saved.apply_chat_template(CALLING, tools=[WEATHER], tokenize=False)
    for number, message in enumerate(CALLING):
        prompt = CALLING[:number] or CALLING[:1]
        is_asked = message["role"] == "assistant"
        before = saved.apply_chat_template(prompt, tools=[WEATHER], tokenize=False, add_generation_prompt=is_asked)
        assert whole.startswith(before)


def test_chat_template_takes_parts_of_text_and_refuses_others(saved):
    parts = [{"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}]
    assert saved.apply_chat_template(parts, tokenize=False) == "<|im_start|>user\nAB<|im_end|>\n"
    with pytest.raises(UndefinedError):
        saved.apply_chat_template([{"role": "user", "content": [{"type": "image", "url": "x"}]}], tokenize=False)


def test_assistant_mask_covers_the_answers_and_their_end(saved):
    encoded = saved.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    marked = [index for index, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert saved.decode(marked) == "def add(a, b):\n    return a + b<|im_end|>Any time.<|im_end|>"
    encoded = saved.apply_chat_template(CALLING[2:4], return_dict=True, return_assistant_tokens_mask=True)
    marked = [index for index, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    answer = saved.decode(marked)
    assert answer.startswith("<think>\nTwo cities.") and answer.endswith("</tool_call><|im_end|>")


@pytest.mark.parametrize("space", ["", " ", "    ", "\t", "\n", "\n\n", " \n  ", "\r\n"])
def test_prompt_tokens_begin_the_tokens_of_the_whole_chat(saved, space):
    """Also if an answer begins with whitespace, which could merge with the line break of the template."""
    chat = [message | {"content": space + message["content"]} for message in CHAT]
    prompts = [saved.apply_chat_template(chat[:end], add_generation_prompt=True)["input_ids"] for end in (2, 4)]
    whole = saved.apply_chat_template(chat)["input_ids"]
    for prompt in prompts:
        assert whole[: len(prompt)] == prompt
        assert saved.convert_ids_to_tokens(prompt[-1:]) == ["<|im_start|>assistant\n"]


def test_character_level(tmp_path):
    tokenizer = CharacterTokenizer.train(["To be,\n", "é 🦊"])
    assert tokenizer.tokens == [*SPECIAL_TOKENS, "<|unknown|>", *sorted("To be,\né🦊")]
    tokenizer.save(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    text = "be To,\n\n é🦊<|endoftext|>  b"
    ids = tokenizer.encode(text)
    assert len(ids) == 15 and ids == saved(text)["input_ids"] == CharacterTokenizer.load(tmp_path).encode(text)
    assert tokenizer.decode(ids) == text == saved.decode(ids)


def test_character_level_refuses_an_unknown_character(tmp_path):
    tokenizer = CharacterTokenizer.train(["To be,\n"], unknown=False)
    with pytest.raises(ValueError, match="the character 'z' is not in this character-level"):
        tokenizer.encode("zoo")
    tokenizer.save(tmp_path)
    with pytest.raises(Exception, match="UNK"):  # never dropped in silence
        AutoTokenizer.from_pretrained(tmp_path)("zoo")


@pytest.mark.parametrize("text", ["zoo be", "😀\n<|unknown|>", "<|im_end|>q", "<|pad", "é", ""])
def test_unknown_characters_of_a_character_level_tokenizer_are_one_token(tmp_path, text):
    tokenizer = CharacterTokenizer.train(["To be,\n"])
    tokenizer.save(tmp_path)
    saved, loaded = AutoTokenizer.from_pretrained(tmp_path), CharacterTokenizer.load(tmp_path)
    assert saved.unk_token_id == tokenizer.vocab["<|unknown|>"] == len(SPECIAL_TOKENS)
    for split in (True, False):
        ids = tokenizer.encode(text, split_special_tokens=split)
        assert ids == loaded.encode(text, split) == saved(text, split_special_tokens=split)["input_ids"]
        assert tokenizer.decode(ids) == saved.decode(ids)
    assert "z" not in tokenizer.vocab and saved.decode(tokenizer.encode("zoo"), skip_special_tokens=True) == "oo"
