"""Formats of tuning data: what is detected, what it becomes, and what is reported of all else."""

import pytest
from datasets import Dataset

from training.common.errors import UserError
from training.tuning.dataset_formats import INSTRUCTIONS, NUMBER, PREFERENCES, PROMPTS, UNPAIRED, convert_dataset, text

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
        convert_dataset(Dataset.from_list(records), formats, "recipe")
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
            "record 2: message 1 of 'conversations' is from 'bard'; known: human, gpt, user, assistant, system, tool",
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
