"""Formats of tuning data: what is detected, what it becomes, and what is reported of all else."""

import json

import pytest
from datasets import Dataset

from training.common.errors import UserError
from training.model_io.messages import without_nulls
from training.tuning.dataset_formats import (
    INSTRUCTIONS,
    NUMBER,
    PREFERENCES,
    PROMPTS,
    UNPAIRED,
    convert_dataset,
    sharegpt,
    text,
)

USER, ASSISTANT = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}
SYSTEM = {"role": "system", "content": "Speak."}
TOOL = {"role": "tool", "content": "1"}
PAIR = {"prompt": [USER], "completion": [ASSISTANT]}
SHAREGPT = [
    {"from": "system", "value": "Speak."},
    {"from": "human", "value": "Where?"},
    {"from": "tool", "value": "1"},
    {"from": "gpt", "value": "Here."},
]

TAKEN = [
    # a record, what it becomes, what is said
    ({"messages": [USER, ASSISTANT], "id": 1}, {"messages": [USER, ASSISTANT]}, "messages; ignored: id"),
    ({"messages": [USER, ASSISTANT], "prompt": "Where?"}, {"messages": [USER, ASSISTANT]}, "messages; ignored: prompt"),
    ({"messages": [USER], "tools": "[]"}, {"messages": [USER], "tools": "[]"}, "messages, tools"),
    (PAIR, PAIR, "prompt-completion (prompt, completion)"),
    (
        {"prompt": "1 + 1 =", "completion": " 2"},
        {"prompt": "1 + 1 =", "completion": " 2"},
        "prompt-completion (prompt, completion)",
    ),
    (
        {"conversations": SHAREGPT, "source": "x"},
        {"messages": [SYSTEM, USER, TOOL, ASSISTANT]},
        "ShareGPT (conversations); ignored: source",
    ),
    ({"conversations": [USER, ASSISTANT]}, {"messages": [USER, ASSISTANT]}, "ShareGPT (conversations)"),
    ({"instruction": "Where?", "input": "", "output": "Here."}, PAIR, "alpaca (instruction, input, output)"),
    ({"instruction": "Where?", "input": None, "output": "Here."}, PAIR, "alpaca (instruction, input, output)"),
    ({"instruction": "Where?", "output": "Here."}, PAIR, "alpaca (instruction, output)"),
    (
        {"instruction": "Where", "input": "is it?", "output": "Here.", "chosen": "Here."},
        {"prompt": [{"role": "user", "content": "Where\n\nis it?"}], "completion": [ASSISTANT]},
        "alpaca (instruction, input, output); ignored: chosen",
    ),
    (
        {"instruction": "Where", "context": "is it?", "response": "Here.", "category": "a"},
        {"prompt": [{"role": "user", "content": "Where\n\nis it?"}], "completion": [ASSISTANT]},
        "Dolly (instruction, context, response); ignored: category",
    ),
    ({"question": "Where?", "answer": "Here."}, PAIR, "questions (question, answer)"),
    ({"text": "Here.", "n": 1}, {"text": "Here."}, "text; ignored: n"),
    (
        {"input_ids": [1], "labels": [1], "n": 1},
        {"input_ids": [1], "labels": [1]},
        "tokens (input_ids, labels); ignored: n",
    ),
]


@pytest.mark.parametrize("record, becomes, told", TAKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_recognised(record, becomes, told):
    data, line = convert_dataset(Dataset.from_list([record] * 2), (*INSTRUCTIONS, text("text")), "recipe")
    assert list(data) == [becomes] * 2 and line == told
    stream, line = convert_dataset(
        Dataset.from_list([record]).to_iterable_dataset(), (*INSTRUCTIONS, text("text")), "recipe"
    )
    assert list(stream) == [becomes] and line == told


def test_an_instruction_is_part_of_a_preference():
    """Of two answers alone the trainer would think that the prompt stands in both."""
    record = {"instruction": "Where", "input": "is it?", "chosen": "Here.", "rejected": "There."}
    data, line = convert_dataset(Dataset.from_list([record]), PREFERENCES, "recipe")
    assert line == "alpaca preference (instruction, input, chosen, rejected)"
    assert list(data) == [
        {
            "prompt": [{"role": "user", "content": "Where\n\nis it?"}],
            "chosen": [ASSISTANT],
            "rejected": [{"role": "assistant", "content": "There."}],
        }
    ]


def test_prompts_keep_all_columns_and_are_numbered():
    records = [{"prompt": "1 + 1 =", "answer": 2, "record": "a"}, {"prompt": "1 + 2 =", "answer": 3, "record": "b"}]
    data, line = convert_dataset(Dataset.from_list(records), PROMPTS, "recipe")
    assert list(data) == [record | {NUMBER: number} for number, record in enumerate(records, start=1)]
    assert line == "prompt-only (prompt, answer, record)"
    stream, _ = convert_dataset(Dataset.from_list(records).to_iterable_dataset(), PROMPTS, "recipe")
    assert list(stream) == list(data)
    data, _ = convert_dataset(Dataset.from_list([{"question": "Where?", "answer": "Here."}]), PROMPTS, "recipe")
    assert list(data) == [{"question": "Where?", "answer": "Here.", "prompt": [USER], NUMBER: 1}]


def refusal(records: list[dict], formats=INSTRUCTIONS) -> str:
    with pytest.raises(UserError) as told:
        convert_dataset(Dataset.from_list(records, on_mixed_types="use_json"), formats, "recipe")
    return str(told.value)


def test_unknown_columns_are_named_beside_the_known_shapes():
    line = refusal([{"id": 1, "body": "x"}])
    assert line.startswith(
        "recipe: 'datasets' have the columns id, body; use input_ids (tokens), or messages, or "
    )
    assert "conversations (ShareGPT), or instruction+output (alpaca)" in line
    line = refusal([{"messages": [USER]}], PREFERENCES)
    assert line.endswith(
        "; use prompt+chosen+rejected (preference), or instruction+chosen+rejected (alpaca preference), "
        "or chosen+rejected (preference with implicit prompt)"
    )


@pytest.mark.parametrize(
    "good, bad, message",
    [
        ({"messages": [USER]}, {"messages": []}, "record 2: 'messages' is not a list of messages"),
        ({"messages": [USER]}, {"messages": None}, "record 2: 'messages' is not a list of messages"),
        (
            {"messages": [USER]},
            {"messages": [USER, {"role": "user"}]},
            "record 2: message 2 of 'messages' has no content",
        ),
        ({"messages": [USER]}, {"messages": [{"content": "x"}]}, "record 2: message 1 of 'messages' has no role"),
        ({"conversations": SHAREGPT}, {"conversations": None}, "record 2: 'conversations' is not a list of messages"),
        (
            {"conversations": SHAREGPT},
            {"conversations": [{"from": "bard", "value": "x"}]},
            "record 2: message 1 of 'conversations' is from 'bard'; known: human, gpt, user, assistant, system, tool, "
            "developer",
        ),
        ({"prompt": "a", "completion": "b"}, {"prompt": "a"}, "record 2: 'completion' is not text"),
        (PAIR, {"prompt": [USER], "completion": None}, "record 2: 'completion' is not a list of messages"),
        ({"instruction": "a", "output": "b"}, {"instruction": "a"}, "record 2: 'output' is not text"),
        (
            {"instruction": "a", "input": 1, "output": "b"},
            {"instruction": "a", "input": 0, "output": "b"},
            "record 1: 'input' is not text",
        ),
        ({"input_ids": [1]}, {"input_ids": []}, "record 2: 'input_ids' is empty"),
        ({"input_ids": [1]}, {"input_ids": [5, -1]}, "record 2: 'input_ids' has the id -1, which no token has"),
        ({"input_ids": [1]}, {"input_ids": [5, 0.5]}, "record 1: 'input_ids' is not a list of integers"),
        ({"input_ids": "a"}, {"input_ids": "b"}, "record 1: 'input_ids' is not a list of token ids"),
        (
            {"input_ids": [1], "labels": [1]},
            {"input_ids": [1, 2], "labels": [1]},
            "record 2: 'labels' has 1 numbers for 2 tokens",
        ),
    ],
)
def test_the_record_at_fault_is_named(good, bad, message):
    assert f"recipe: 'datasets', {message}" == refusal([good, bad, good])


def test_prompts_and_judgements_at_fault():
    line = refusal([{"prompt": "a"}, {"prompt": None}], PROMPTS)
    assert line.endswith("record 2: 'prompt' is not a list of messages")
    assert refusal([{"question": "a"}, {"question": None}], PROMPTS).endswith("record 2: 'question' is not text")
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert refusal([pair, pair | {"rejected": None}], PREFERENCES).endswith("record 2: 'rejected' is not text")
    pair = {"instruction": "a", "input": 7, "chosen": "b", "rejected": "c"}
    assert refusal([pair], PREFERENCES).endswith("record 1: 'input' is not text")
    pair = {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}
    assert refusal([pair, pair | {"chosen": []}], PREFERENCES).endswith("record 2: 'chosen' is not a list of messages")
    judged = {"prompt": "a", "completion": "b", "label": True}
    assert refusal([judged, judged | {"label": None}], UNPAIRED).endswith("record 2: 'label' is neither true nor false")


def converted(record: dict, formats=INSTRUCTIONS) -> dict:
    """One record, with the keys that `datasets` fills with null left out."""
    data, _ = convert_dataset(Dataset.from_list([record]), formats, "recipe")
    return without_nulls(data[0])


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
WRITTEN = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}


@pytest.mark.parametrize(
    "message, becomes",
    [
        ({"role": "human", "content": "Hi"}, {"role": "user", "content": "Hi"}),
        ({"role": "gpt", "content": "Hi"}, {"role": "assistant", "content": "Hi"}),
        ({"role": "developer", "content": "Hi"}, {"role": "system", "content": "Hi"}),
        (
            {"role": "user", "content": [{"type": "text", "text": "Hi, "}, {"type": "text", "text": "you"}]},
            {"role": "user", "content": "Hi, you"},
        ),
        (
            {"role": "assistant", "content": "", "thinking": "Hm."},
            {"role": "assistant", "content": "", "reasoning_content": "Hm."},
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "assistant", "content": "", "tool_calls": [WRITTEN]},
        ),
        (
            {"role": "assistant", "tool_calls": [CALL["function"] | {"arguments": '{"city": "Ulm"}'}]},
            {"role": "assistant", "content": "", "tool_calls": [WRITTEN]},
        ),
    ],
)
def test_a_message_in_another_form(message, becomes):
    assert converted({"messages": [message]}) == {"messages": [becomes]}
    turn = {"from": message["role"], "value": message.get("content")} | message
    assert converted({"conversations": [turn]}) == {"messages": [becomes]}


def test_each_call_and_each_tool_keeps_its_own_keys():
    """Of differing keys `datasets` makes a struct of all of them, null where there were none."""
    other = {"type": "function", "function": {"name": "time", "arguments": {"zone": "CET"}}}
    tools = [{"type": "function", "function": {"name": name, "parameters": {name: {}}}} for name in ("weather", "time")]
    answers = [{"role": "assistant", "tool_calls": [call]} for call in (CALL, other)]
    records = [{"messages": [USER, answer], "tools": tools} for answer in answers]
    data, told = convert_dataset(Dataset.from_list(records), INSTRUCTIONS, "recipe")
    calls = [record["messages"][1]["tool_calls"][0]["function"]["arguments"] for record in data]
    assert told == "messages, tools" and calls == ['{"city": "Ulm"}', '{"zone": "CET"}']
    assert [json.loads(tools) for tools in data["tools"]] == [tools, tools]


@pytest.mark.parametrize(
    "message, fact",
    [
        ({"role": "asistant", "content": "x"}, "has the role 'asistant'; known: human, gpt, user, assistant"),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "has a part of type 'image', which is not text"),
        ({"role": "assistant", "content": None}, "has no content"),
        ({"role": "assistant", "content": "", "function_call": CALL["function"]}, "write it as 'tool_calls'"),
        ({"role": "assistant", "content": "x", "weight": 0}, "weight 0"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "which only the assistant writes"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "a tool call without a name"),
        ({"role": "assistant", "tool_calls": [{"function": "weather"}]}, "a tool call without a name"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": "Ulm"}}]},
            "the arguments of the call of weather are not a JSON object",
        ),
    ],
)
def test_a_message_that_would_be_learned_wrongly(message, fact):
    line = refusal([{"messages": [USER, ASSISTANT]}, {"messages": [USER, message]}])
    assert line.startswith("recipe: 'datasets', record 2: message 2 of 'messages'") and fact in line


def test_a_speaker_that_is_not_text():
    with pytest.raises(ValueError, match="message 1 of 'conversations' is from"):
        sharegpt({"conversations": [{"from": {"name": "human"}, "value": "x"}]})


def test_tools_that_would_be_learned_wrongly():
    assert refusal([{"messages": [USER], "tools": "{"}]).endswith("record 1: 'tools' is not valid JSON")
    for tools in ('[{"type": "function"}]', '[{"function": "weather"}]', "[1]"):
        assert refusal([{"messages": [USER], "tools": tools}]).endswith("tool 1 of 'tools' has no name")
    assert "'tools' cannot be called during training" in refusal([{"prompt": [USER], "tools": "[{}]"}], PROMPTS)


PREFERENCE = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "There."}]}


@pytest.mark.parametrize(
    "prompt", [None, "Where?", [USER]], ids=["in both", "in both and as text", "in both and as messages"]
)
def test_the_prompt_of_a_preference(prompt):
    """UltraFeedback has it three times."""
    both = {answer: [USER, *PREFERENCE[answer]] for answer in ("chosen", "rejected")}
    assert converted(both | ({"prompt": prompt} if prompt else {}), PREFERENCES) == PREFERENCE
    assert converted(PREFERENCE | ({"prompt": prompt} if prompt else {}), PREFERENCES) == PREFERENCE
    identical = {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}
    assert converted(identical, PREFERENCES) == PREFERENCE | {"rejected": [ASSISTANT]}  # as TRL takes it


WHEN = {"role": "user", "content": "When?"}


@pytest.mark.parametrize(
    "pair, facts",
    [
        ({"chosen": [USER, ASSISTANT], "rejected": [WHEN, ASSISTANT]}, ["'chosen' and 'rejected'", "same prompt"]),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER]}, ["'chosen' and 'rejected'", "same prompt"]),
        (
            {"chosen": [SYSTEM, USER, ASSISTANT], "rejected": [SYSTEM, WHEN, ASSISTANT]},
            ["message 2 of 'chosen'", "user"],
        ),
        ({"prompt": "Who?", "chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]}, ["'prompt' is not in both"]),
    ],
)
def test_answers_to_different_prompts(pair, facts):
    line = refusal([pair], PREFERENCES)
    assert line.startswith("recipe: 'datasets', record 1: ") and all(fact in line for fact in facts)


def test_a_prompt_of_text_with_an_answer_in_messages():
    assert converted({"prompt": "Where?", "completion": [ASSISTANT]}) == PAIR
    assert converted({"prompt": "Where?", "completion": [ASSISTANT], "label": True}, UNPAIRED) == PAIR | {"label": True}
