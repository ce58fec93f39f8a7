"""Turns of a conversation, its file, and the settings for its answers."""

import json
import os
from pathlib import Path

import pytest
from datasets import load_dataset
from messages import refused
from transformers import GenerationConfig

from training.chat.conversation import Conversation
from training.chat.sampling import DEFAULT_MAX_NEW_TOKENS, Sampling, describe
from training.common.errors import UserError
from training.stages.recipe import build
from training.tuning.dataset_formats import INSTRUCTIONS, convert_dataset


def talk(*contents: str, system: str | None = None) -> Conversation:
    conversation = Conversation(system)
    for number, content in enumerate(contents):
        (conversation.answer if number % 2 else conversation.ask)(content)
    return conversation


def test_the_oldest_turns_are_forgotten_and_the_system_prompt_is_not():
    conversation = talk("a", "b", "c", "d", "e", system="s")
    seen = []
    while True:
        seen.append("".join(message["content"] for message in conversation.seen()))
        if not conversation.forget():
            break
    assert seen == ["sabcde", "scde", "se"] and len(conversation.messages) == 5
    conversation.answer("f")
    assert conversation.undo() == "e"
    assert "".join(message["content"] for message in conversation.seen()) == "sabcd"


def test_a_saved_conversation_is_what_sft_reads(tmp_path):
    file = tmp_path / "talks.jsonl"
    talks = [talk("Where?", "Thére.\n\u2028", system="Speak."), talk("a", "b", "c", "d")]
    for conversation in talks:
        conversation.save(file, "runs/one")
    data = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    taken, told = convert_dataset(data, INSTRUCTIONS, "recipe")
    assert told == "messages; ignored: model"
    assert taken["messages"][0] == [{"role": "system", "content": "Speak."}, *talks[0].messages]
    assert taken["messages"][1] == talks[1].messages


@pytest.mark.parametrize("content", ["a text\n", '{"text": "a"}\n', "[1]\n", '"messages"\n', b"\xff\xfe"])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    file = tmp_path / "notes"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = file.read_bytes()
    with pytest.raises(UserError, match="does not contain conversations; choose another name"):
        talk("a", "b").save(file, "one")
    assert file.read_bytes() == before


def test_where_nothing_can_be_written(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    devices = (Path("/dev/full"), Path("/dev/zero"), tmp_path / "pipe")  # which have no end, or no reader
    for file in (tmp_path, tmp_path / "nowhere" / "file", Path("a\0b"), *devices):
        with pytest.raises(UserError, match="cannot be written"):
            talk("a", "b").save(file, "one")


def test_a_line_is_whole_behind_one_without_an_end(tmp_path):
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps({"messages": talk("a", "b").messages}))
    talk("c", "d").save(file, "one")
    assert [json.loads(line)["messages"][0]["content"] for line in file.read_text().splitlines()] == ["a", "c"]


OURS = {"do_sample": True, "temperature": 0.8, "top_k": 50, "max_new_tokens": 256, "suppress_tokens": [3]}
GREEDY = f"always the most likely token, max_new_tokens {DEFAULT_MAX_NEW_TOKENS}"


@pytest.mark.parametrize(
    "model, given, holds",
    [
        (OURS, {}, "temperature 0.8, top_k 50, top_p 1.0, max_new_tokens 256"),
        (OURS, {"temperature": 0, "top_p": 0.5}, "always the most likely token, max_new_tokens 256"),
        (OURS, {"top_k": 0, "max_new_tokens": 7}, "temperature 0.8, top_k 0, top_p 1.0, max_new_tokens 7"),
        ({}, {}, GREEDY),
        ({}, {"seed": 3}, GREEDY),
        ({}, {"top_p": 0.9}, f"temperature 1.0, top_k 50, top_p 0.9, max_new_tokens {DEFAULT_MAX_NEW_TOKENS}"),
        (
            {"max_length": 30, "num_beams": 4},
            {"repetition_penalty": 1.2},
            f"always the most likely token, repetition_penalty 1.2, max_new_tokens {DEFAULT_MAX_NEW_TOKENS}",
        ),
    ],
)
def test_what_holds(model, given, holds):
    of_model = GenerationConfig(**model)
    settings = Sampling(**given).applied(of_model)
    assert describe(settings) == holds
    assert (settings.num_beams, settings.suppress_tokens) == (1, of_model.suppress_tokens)
    assert of_model == GenerationConfig(**model)  # as it was


@pytest.mark.parametrize(
    "key, values, wanted",
    [
        ("temperature", (-0.1, float("nan"), float("inf")), "at least 0"),
        ("top_k", (-1,), "at least 0"),
        ("top_p", (0, 1.1), "above 0, at most 1"),
        ("repetition_penalty", (0, -1, float("inf")), "above 0"),
        ("max_new_tokens", (0,), "at least 1"),
        ("seed", (-1, 2**64), "at least 0, below"),
    ],
)
def test_out_of_range(key, values, wanted):
    for value in values:
        with refused(key, wanted, value):
            build(Sampling, {key: value}, "/set")
