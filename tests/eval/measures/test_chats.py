"""Answers to the questions of a file, on a model that knows them by heart; figures from plain forward passes."""

import json
import math

import pytest
import torch
from taught import GOOD, RECORDS, SUMS
from transformers import LlamaConfig, LlamaForSequenceClassification

from training.common.errors import UserError
from training.eval.measures.chats import ChatConfig, open_chat
from training.eval.measures.records import read_pairs, read_questions
from training.eval.measures.reward_model import score_conversations

JUDGE_TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }}<|im_end|>{% endfor %}"


def write(file, records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def user(words):
    return [{"role": "user", "content": words}]


def assistant(words):
    return [{"role": "assistant", "content": words}]


@torch.inference_mode()
def nats(model, prompt, answer):
    """Of the answer's tokens, one by one."""
    logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0].double()
    chosen = torch.log_softmax(logits, dim=-1)
    return -sum(chosen[len(prompt) + place - 1, token].item() for place, token in enumerate(answer))


def measure(config, model, tokenizer, limit=100, max_new_tokens=60, context=256):
    chat = open_chat("some", config, limit, seed=0)
    chat.check(tokenizer, context - max_new_tokens, "taught", "models.m")
    return chat.measure(model, model, tokenizer, max_new_tokens, context, batch_size=2)


@pytest.fixture(scope="module")
def judge(tokenizer, tmp_path_factory):
    """A reward model with a template of its own, and few positions."""
    folder = tmp_path_factory.mktemp("judges") / "judge"
    torch.manual_seed(1)
    sizes = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(
        **sizes, num_attention_heads=2, max_position_embeddings=90, num_labels=1, pad_token_id=1, initializer_range=0.5
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(JUDGE_TEMPLATE)
    return folder


def test_conversations(tokenizer, taught, judge, tmp_path):
    """Three that the model knows, one of them with another answer than it gives."""
    shown = [record["messages"][0]["content"] for record in RECORDS]
    known = [record["messages"][1]["content"] for record in RECORDS]
    records = [
        {"messages": user(question) + assistant(answer), "tests": ">>> add(1, 2)\n3"}
        for question, answer in zip(shown, [*known[:2], "def mul(a, b): return a * b"])
    ]
    config = ChatConfig(write(tmp_path / "a.jsonl", records), rewards=["parses", "doctest"], judge=str(judge))
    figures, samples, outcomes = measure(config, taught, tokenizer)

    assert {metric: figure["unit"] for metric, figure in figures.items()} == {
        "ends": "share",
        "parses": "share",
        "doctest": "share",
        "reward": "number",
        "bits per byte": "number",
    }
    assert figures["ends"] == {"value": 1.0, "stderr": 0.0, "n": 3, "left_out": 0, "unit": "share"}
    assert figures["parses"]["value"] == pytest.approx(2 / 3)  # "def mul(a:" does not
    assert figures["doctest"]["value"] == pytest.approx(1 / 3)
    assert {sample["answer"] for sample in samples} == set(known)

    stock = LlamaForSequenceClassification.from_pretrained(judge)
    scores = {}
    for question, answer in zip(shown, known):
        ids = tokenizer(f"[user] {question}<|im_end|>[assistant] {answer}<|im_end|>")["input_ids"]
        with torch.inference_mode():
            scores[answer] = stock(input_ids=torch.tensor([ids])).logits.item()
    assert len(set(scores.values())) == 3
    assert {sample["answer"]: sample["reward"] for sample in samples} == pytest.approx(scores, abs=1e-4)
    assert figures["reward"]["value"] == pytest.approx(sum(scores.values()) / 3, abs=1e-4)

    bits, sizes = [], []
    for record in records:
        question, answer = (message["content"] for message in record["messages"])
        prompt = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        bits.append(nats(taught, prompt, tokenizer(answer + "<|im_end|>")["input_ids"]) / math.log(2))
        sizes.append(len(answer))
    assert figures["bits per byte"]["value"] == pytest.approx(sum(bits) / sum(sizes), rel=1e-4)
    assert figures["bits per byte"]["n"] == 3
    kept = [(one.scores["bits per byte"], one.weight) for one in outcomes if one.measure == "references: some"]
    assert sorted(weight for _, weight in kept) == sorted(sizes)
    assert sorted(rate * weight for rate, weight in kept) == pytest.approx(sorted(bits), rel=1e-4)
    assert [one.scores["doctest"] for one in outcomes if one.measure == "chats: some"].count(1.0) == 1


def test_text_goes_on_and_ends_with_the_end_of_text(tokenizer, taught, tmp_path):
    records = [
        {"prompt": prompt, "completion": f" {eval(prompt[:-1])}", "answer": eval(prompt[:-1]), "pattern": r"\d+"}
        for prompt in SUMS
    ]
    config = ChatConfig(write(tmp_path / "a.jsonl", records), rewards=["number", "training.tuning.reward_functions.format"])
    figures, samples, _ = measure(config, taught, tokenizer, max_new_tokens=8)
    assert {sample["prompt"]: sample["answer"] for sample in samples} == SUMS
    assert figures["ends"]["value"] == 1.0
    by_hand = [int(answer) == eval(prompt[:-1]) for prompt, answer in SUMS.items()]
    assert figures["number"]["value"] == pytest.approx(sum(by_hand) / 3) and sum(by_hand) == 2
    assert figures["format"]["value"] == 1.0
    cost = [
        nats(taught, tokenizer(record["prompt"])["input_ids"], tokenizer(record["completion"])["input_ids"] + [0])
        for record in records
    ]
    assert figures["bits per byte"]["value"] == pytest.approx(sum(cost) / math.log(2) / 6, rel=1e-4)
    assert "reward" not in figures


def long_ones(tmp_path):
    """One that fits, one whose prompt does not, one whose reference does not."""
    sizes = [("sub", "def other(a):\n    pass"), ("x" * 150, "y"), ("sub", "z" * 150)]
    return write(tmp_path / "long.jsonl", [{"instruction": ask, "output": answer} for ask, answer in sizes])


def test_what_does_not_fit_is_left_out_and_counted(tokenizer, taught, judge, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tokenizer, "model_max_length", 128)
    config = ChatConfig(long_ones(tmp_path), judge=str(judge))
    figures, _, _ = measure(config, taught, tokenizer, max_new_tokens=30, context=128)
    counts = {metric: (figure["n"], figure["left_out"]) for metric, figure in figures.items()}
    assert counts == {"ends": (2, 1), "reward": (2, 1), "bits per byte": (1, 2)}
    assert "longer than the specified maximum" not in caplog.text
    judged, samples, _ = measure(config, taught, tokenizer, limit=3, max_new_tokens=60)
    assert judged["ends"]["n"] == 3 and judged["reward"]["left_out"] == 1  # longer than the judge's positions
    assert ["reward" in sample for sample in samples].count(False) == 1
    with pytest.raises(UserError, match="'max_new_tokens': it leaves no room for any prompt of 'chats.some'"):
        measure(config, taught, tokenizer, max_new_tokens=120, context=128)


def test_prompts_alone_have_no_reference(tokenizer, taught, tmp_path):
    config = ChatConfig(write(tmp_path / "a.jsonl", [{"prompt": user("sub"), "pattern": "def.*"}]), ["format"])
    figures, _, _ = measure(config, taught, tokenizer)
    assert figures["format"]["value"] == 1.0 and set(figures) == {"ends", "format"}


def half(completions, **_):
    return [None if content[0]["content"] == GOOD else 0.25 for content in completions]


async def length(completions, completion_ids, log_metric, **_):
    log_metric("completions", len(completions))
    return [len(ids) for ids in completion_ids]


def test_rewards_of_somebodys_own(tokenizer, taught, tmp_path):
    """One judges some answers only; one waits, and asks for what TRL gives beside the columns."""
    config = ChatConfig(write(tmp_path / "a.jsonl", RECORDS), rewards=[f"{__name__}.half", f"{__name__}.length"])
    figures, _, outcomes = measure(config, taught, tokenizer)
    characters = [len(record["messages"][1]["content"]) for record in RECORDS]  # a byte is a token
    assert figures["length"]["value"] == pytest.approx(sum(characters) / 3) and figures["length"]["unit"] == "number"
    assert figures["half"] == {"value": 0.25, "stderr": 0.0, "n": 2, "left_out": 1, "unit": "number"}
    assert sum("half" in outcome.scores for outcome in outcomes) == 2


def test_the_last_answer_of_a_conversation_is_asked_for(tmp_path):
    turns = user("a") + assistant("b") + user("c")
    records = [{"messages": turns + assistant("d")}, {"messages": turns}]
    first, second = read_questions(write(tmp_path / "a.jsonl", records), "key")
    assert (first.prompt, first.reference) == (turns, assistant("d"))
    assert (second.prompt, second.reference) == (turns, None)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b")},
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
        {"chosen": user("q") + assistant("a"), "rejected": user("q") + assistant("b")},
    ],
    ids=lambda record: " ".join(record),
)
def test_pairs_of_all_shapes(record, tmp_path):
    pairs = read_pairs(write(tmp_path / "a.jsonl", [record]), "key")
    assert pairs == [{"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b")}]


def test_pairs_of_text(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"chosen": "The sky is blue", "rejected": "The sky is green"}])
    assert read_pairs(file, "key") == [{"prompt": "The sky is", "chosen": " blue", "rejected": " green"}]


@pytest.mark.parametrize(
    "records, message",
    [
        ([], "'chats.some.file': FILE is empty"),
        (
            [{"body": "x"}],
            "'chats.some.file': the records of FILE have the columns body; it takes messages, or prompt+",
        ),
        ([{"prompt": "a"}, {"prompt": None}], "'chats.some.file': FILE, record 2: 'prompt' is not a list of messages"),
        ([{"prompt": "a"}, {"prompt": user("a")}], "some records are text and some are messages"),
        ([{"messages": assistant("a")}], "'chats.some.file': FILE, record 1 asks nothing"),
        ([{"prompt": ""}], "'chats.some.file': FILE, record 1 asks nothing"),
        ([{"messages": user([{"type": "image"}])}], "record 1 holds a message that is no text"),
        ([{"messages": user("a"), "tools": "[]"}], "record 1: nothing is measured with tools"),
    ],
)
def test_a_file_at_fault(records, message, tmp_path):
    file = write(tmp_path / "a.jsonl", records)
    with pytest.raises(UserError) as told:
        open_chat("some", ChatConfig(file), 10, 0)
    assert message.replace("FILE", file) in str(told.value)


@pytest.mark.parametrize(
    "rewards, message",
    [
        (["number"], "FILE: 'chats.some.rewards': number needs the column answer; its records have pattern"),
        (["formt"], "FILE: 'chats.some.rewards': no reward 'formt'; did you mean 'format'?"),
        (["format"], "'chats.some.rewards': format failed on record 2 of the data, completion ''"),
        (["parses", "parses"], "'chats.some.rewards': two measures would be called 'parses'"),
    ],
)
def test_a_reward_at_fault_is_told_before_any_work(rewards, message, tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": "a", "pattern": "x"}, {"prompt": "b", "pattern": None}])
    with pytest.raises(UserError) as told:
        open_chat("some", ChatConfig(file, rewards), 10, 0)
    assert message.replace("FILE", file) in str(told.value)


def test_a_judge_at_fault(tokenizer, tiny_model, judge, tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": user("q")}])

    def refusal(folder):
        with pytest.raises(UserError) as told:
            open_chat("some", ChatConfig(file, judge=str(folder)), 10, 0)
        return str(told.value)

    assert refusal(tmp_path / "gone").startswith("'chats.some.judge'") and "scratch reward" in refusal(
        tmp_path / "gone"
    )
    assert "holds no model (no config.json)" in refusal(tmp_path)
    tiny_model().save_pretrained(tmp_path / "language")
    tokenizer.save_pretrained(tmp_path / "language")
    assert "holds a LlamaForCausalLM" in refusal(tmp_path / "language")
    model = LlamaForSequenceClassification.from_pretrained(judge)
    model.score = torch.nn.Linear(16, 3, bias=False)
    model.config.num_labels = 3
    model.save_pretrained(tmp_path / "labels")
    tokenizer.save_pretrained(tmp_path / "labels")
    assert "LlamaForSequenceClassification with 3 labels" in refusal(tmp_path / "labels")
    model = LlamaForSequenceClassification.from_pretrained(judge)
    torch.nn.init.constant_(model.score.weight, math.nan)
    model.save_pretrained(tmp_path / "nan")
    tokenizer.save_pretrained(tmp_path / "nan")
    with pytest.raises(UserError, match="'judge': .*nan gave nan as a score, which is no finite number"):
        score_conversations(str(tmp_path / "nan"), [(user("q"), assistant("a"))], 1)


def test_a_template_that_will_not_do(tokenizer, tmp_path):
    chat = open_chat("some", ChatConfig(write(tmp_path / "a.jsonl", [{"prompt": user("q")}])), 10, 0)
    template = tokenizer.chat_template
    try:
        for other, message in [
            (None, "'models.m': taught has no chat template, so that it cannot be asked in messages"),
            (JUDGE_TEMPLATE.replace("<|im_end|>", "."), "does not end with a special token"),
            (
                "{{ raise_exception('users only') }}",
                "the chat template of taught does not take the messages (users only)",
            ),
        ]:
            tokenizer.chat_template = other
            with pytest.raises(UserError) as told:
                chat.check(tokenizer, 100, "taught", "models.m")
            assert message in str(told.value)
    finally:
        tokenizer.chat_template = template
