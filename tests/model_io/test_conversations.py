"""Conversations as token ids: every prompt as inference shows it, and special tokens in messages as text."""

import pytest
from foreign_tokenizers import JOINS, SPECIAL, TEXT, byte_level, foreign
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from tokenizers import decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling_scratch.tokenization_base import CHAT_TEMPLATE
from modeling_scratch.tokenization_character import CharacterTokenizer
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.model_io.conversations import encode_answers, encode_conversation, encode_prompt, encode_text

TEMPLATES = {
    "ChatML": CHAT_TEMPLATE,
    "ChatML without marks": CHAT_TEMPLATE.replace("{%- generation %}", "").replace("{%- endgeneration %}", ""),
    "Phi-3": "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "Llama 2": "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}"
    "{% else %}{{ (bos_token or '') + '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}",
    "plain lines": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
}


def ours(directory, **options):
    ScratchTokenizer.train([TEXT], 340, **options).save(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


def character_level(directory):
    CharacterTokenizer.train([TEXT, "".join(SPECIAL), "é🦊:[]/INST"]).save(directory)
    return PreTrainedTokenizerFast.from_pretrained(directory)


SENTENCEPIECE = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
OURS = {
    "ours": ours,
    "ours, single": lambda place: ours(place, whitespace="single"),
    "characters": character_level,
}
FOREIGN = {
    "joins": lambda _: foreign(byte_level(JOINS)),
    "removes": lambda _: foreign(byte_level(JOINS), removes=True),
    "GPT-2": lambda _: foreign(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "Gemma": lambda _: foreign(None, normalizers.Replace(" ", "▁"), SENTENCEPIECE, byte_level=False),
    "space first": lambda _: foreign(
        pre_tokenizers.Metaspace(prepend_scheme="first", split=False), None, SENTENCEPIECE, byte_level=False
    ),
    "space always": lambda _: foreign(
        None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), SENTENCEPIECE, False
    ),
}


@pytest.fixture(scope="module", params=OURS | FOREIGN)
def tokenizer(request, tmp_path_factory):
    made = (OURS | FOREIGN)[request.param](tmp_path_factory.mktemp("tokenizer"))
    made.name = request.param
    return made


piece = st.sampled_from(["\n", "\r\n", " ", "    ", "\t", "return", "x", "é", "🦊", "1", "- ", "."])
plain = st.lists(piece, max_size=6).map("".join)
typed = st.lists(piece | st.sampled_from(SPECIAL), max_size=6).map("".join)


def conversations(content):
    turn = st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), content)
    turns = st.lists(turn, min_size=1, max_size=4)
    return turns.map(lambda turns: [{"role": role, "content": text} for role, text in turns])


@settings(max_examples=15, deadline=None)
@given(messages=conversations(typed), template=st.sampled_from(sorted(TEMPLATES.values())))
def test_every_answer_follows_the_prompt_that_inference_shows(tokenizer, template, messages):
    encoded = encode_conversation(tokenizer, messages, chat_template=template)
    answers = [index for index, message in enumerate(messages) if index and message["role"] == "assistant"]
    assert sorted(encoded.prompts) == answers and encoded.as_shown
    for index in answers:
        shown = encode_prompt(tokenizer, messages[:index], chat_template=template)
        assert encoded.ids[: encoded.prompts[index]] == shown
    if answers:
        pair = encode_answers(tokenizer, messages[:index], messages[index:], chat_template=template)
        assert pair.prompt == shown and pair.prompt + pair.answers[0] == encoded.ids


@settings(max_examples=12, deadline=None)
@given(messages=conversations(typed))
def test_messages_lose_no_character_and_write_no_control_token(tokenizer, messages):
    encoded = encode_conversation(tokenizer, messages, chat_template=CHAT_TEMPLATE)
    empty = encode_conversation(
        tokenizer, [message | {"content": ""} for message in messages], False, None, CHAT_TEMPLATE
    )
    special = set(tokenizer.all_special_ids)
    assert [each for each in encoded.ids if each in special] == [each for each in empty.ids if each in special]
    marked = [index for index, mark in zip(encoded.ids, encoded.answers, strict=True) if mark]
    if tokenizer.name not in ("removes", "space first", "space always"):  # which change the text themselves
        turns = [f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in messages]
        assert tokenizer.decode(encoded.ids) == "".join(turns)
        answers = [each["content"] for each in messages if each["role"] == "assistant"]
        if messages[0]["role"] != "assistant":  # no prompt ends before it
            assert tokenizer.decode(marked) == "".join(f"{answer}<|im_end|>" for answer in answers)


@settings(max_examples=6, deadline=None)
@given(messages=conversations(st.sampled_from(["return x", "x. x", "1  x\nx"])))
def test_what_does_not_merge_is_as_in_transformers(tokenizer, messages):
    for template in ("ChatML", "ChatML without marks", "Phi-3", "Llama 2"):
        if tokenizer.name == "removes" and "ChatML" not in template:
            continue  # transformers removes whitespace of the answer together with the template's
        options = {"return_assistant_tokens_mask": template == "ChatML", "return_dict": True}
        theirs = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[template], **options)
        encoded = encode_conversation(tokenizer, messages, chat_template=TEMPLATES[template])
        assert encoded.ids == theirs["input_ids"]
        if tokenizer.name not in ("space first", "space always"):
            assert encoded.answers == theirs.get("assistant_masks", [0] * len(encoded.ids))


@settings(max_examples=15, deadline=None)
@given(messages=conversations(plain))
def test_our_tokenizers_need_no_cuts(tokenizer, messages):
    """Other programs that open the saved folder give the same tokens, such as TRL's and `transformers serve`."""
    if tokenizer.name in OURS:
        ids = encode_conversation(tokenizer, messages).ids
        assert ids == tokenizer.apply_chat_template(messages)["input_ids"]


@settings(max_examples=12, deadline=None)
@given(prompt=typed, answer=typed)
def test_a_text_follows_the_prompt_that_inference_shows(tokenizer, prompt, answer):
    encoded = encode_answers(tokenizer, prompt, answer)
    (ids,) = encoded.answers
    assert encoded.prompt == encode_prompt(tokenizer, prompt) and encoded.as_shown
    assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
    if tokenizer.name not in ("space first", "space always"):
        assert tokenizer.decode(encoded.prompt) == prompt
        assert tokenizer.decode(ids) == answer.removesuffix(tokenizer.eos_token) + tokenizer.eos_token


def test_a_text_may_end_with_the_end_of_text_already():
    tokenizer = foreign(byte_level(JOINS))
    assert encode_text(tokenizer, "x</s>") == encode_text(tokenizer, "x") == tokenizer("x</s>")["input_ids"]


def test_a_text_needs_an_end():
    tokenizer = foreign(byte_level(JOINS))
    tokenizer.eos_token = None
    for encode in (lambda: encode_text(tokenizer, "x"), lambda: encode_answers(tokenizer, "x", "y")):
        with pytest.raises(ValueError, match="no end-of-text token"):
            encode()


THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)


def test_a_template_that_shows_another_prompt_is_noticed():
    tokenizer = foreign(byte_level(JOINS))
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "  1"}]
    encoded = encode_answers(tokenizer, messages[:1], messages[1:], chat_template=THINKS)
    assert not encoded.as_shown and not encode_conversation(tokenizer, messages, chat_template=THINKS).as_shown
    assert tokenizer.decode(encoded.prompt) == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(encoded.answers[0]) == "  1<|im_end|>\n"


def test_a_template_whose_expressions_fail():
    tokenizer = foreign(byte_level(JOINS))
    with pytest.raises(TemplateError, match="TypeError: 'NoneType' object is not iterable"):
        encode_prompt(tokenizer, [{"role": "user", "content": "x"}], chat_template="{% for a in none %}{% endfor %}")


def test_a_template_that_rejects_the_prompt():
    tokenizer = foreign(byte_level(JOINS))
    template = (
        "{% if add_generation_prompt %}{{ raise_exception('never alone') }}{% endif %}" + TEMPLATES["plain lines"]
    )
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "1"}]
    assert encode_conversation(tokenizer, messages, chat_template=template).prompts == {}
    with pytest.raises(TemplateError, match="never alone"):
        encode_answers(tokenizer, messages[:1], messages[1:], chat_template=template)
