"""Answers to the questions of a file, on a model that knows them by heart; figures from plain forward passes."""

import copy
import json
import math

import pytest
import torch
from character_tokenizers import character_tokenizer
from messages import refused
from taught import GOOD, RECORDS, SUMS
from transformers import LlamaConfig, LlamaForSequenceClassification

from training.eval.harness.tasks import Tasks
from training.eval.measures.bits_per_byte import BitsPerByte
from training.eval.measures.chats import Chats, check_chat, measure_chat, open_chat
from training.eval.measures.config import ChatConfig, EvaluateConfig
from training.eval.measures.figures import Figure
from training.eval.measures.measure import Candidate, LoadedModel
from training.eval.measures.records import read_pairs, read_questions
from training.eval.measures.reward_model import score_conversations

SCORER_TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }}<|im_end|>{% endfor %}"


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
    """Figures by metric, samples, and outcomes."""
    chat = open_chat("some", config, limit, seed=0)
    candidate = Candidate("models.m", "taught", tokenizer, context)
    check_chat(chat, candidate, max_new_tokens)
    loaded = LoadedModel(**vars(candidate), model=model, batch_size=2)
    loaded.__dict__["generation_model"] = model  # instead of loading the folder again
    result = measure_chat(chat, loaded, max_new_tokens)
    assert all(key[:2] == ("chats", "some") for key in result.figures)
    return {key.metric: figure for key, figure in result.figures.items()}, result.samples["some"], result.outcomes


@pytest.fixture(scope="module")
def scorer(tokenizer, tmp_path_factory):
    """A reward model with its own template, and few positions."""
    folder = tmp_path_factory.mktemp("scorers") / "scorer"
    torch.manual_seed(1)
    sizes = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(
        **sizes, num_attention_heads=2, max_position_embeddings=90, num_labels=1, pad_token_id=1, initializer_range=0.5
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(SCORER_TEMPLATE)
    return folder


def test_conversations(tokenizer, taught, scorer, tmp_path):
    """Three that the model knows, one of them with another answer than it gives."""
    shown = [record["messages"][0]["content"] for record in RECORDS]
    known = [record["messages"][1]["content"] for record in RECORDS]
    records = [
        {"messages": user(question) + assistant(answer), "tests": ">>> add(1, 2)\n3"}
        for question, answer in zip(shown, [*known[:2], "def mul(a, b): return a * b"])
    ]
    config = ChatConfig(write(tmp_path / "a.jsonl", records), rewards=["parses", "doctest"], reward_model=str(scorer))
    figures, samples, outcomes = measure(config, taught, tokenizer)

    assert {metric: figure.unit for metric, figure in figures.items()} == {
        "ends": "share",
        "parses": "share",
        "doctest": "share",
        "all": "share",
        "reward": "score",
        "bits per byte": "bits per byte",
    }
    assert figures["ends"] == Figure(1.0, 0.0, 3, unit="share", left_out=0)
    assert figures["all"] == figures["doctest"]  # what passes its examples parses, and all answers end
    assert figures["parses"].value == pytest.approx(2 / 3)  # "def mul(a:" does not
    assert figures["doctest"].value == pytest.approx(1 / 3)
    assert {sample["answer"] for sample in samples} == set(known)

    stock = LlamaForSequenceClassification.from_pretrained(scorer)
    scores = {}
    for question, answer in zip(shown, known):
        ids = tokenizer(f"[user] {question}<|im_end|>[assistant] {answer}<|im_end|>")["input_ids"]
        with torch.inference_mode():
            scores[answer] = stock(input_ids=torch.tensor([ids])).logits.item()
    assert len(set(scores.values())) == 3
    assert {sample["answer"]: sample["reward"] for sample in samples} == pytest.approx(scores, abs=1e-4)
    assert figures["reward"].value == pytest.approx(sum(scores.values()) / 3, abs=1e-4)

    bits, sizes = [], []
    for record in records:
        question, answer = (message["content"] for message in record["messages"])
        prompt = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        bits.append(nats(taught, prompt, tokenizer(answer + "<|im_end|>")["input_ids"]) / math.log(2))
        sizes.append(len(answer))
    assert figures["bits per byte"].value == pytest.approx(sum(bits) / sum(sizes), rel=1e-4)
    assert figures["bits per byte"].n == 3
    kept = [(one.scores["bits per byte"], one.weight) for one in outcomes if "bits per byte" in one.scores]
    assert sorted(weight for _, weight in kept) == sorted(sizes)
    assert sorted(rate * weight for rate, weight in kept) == pytest.approx(sorted(bits), rel=1e-4)
    assert [one.scores["doctest"] for one in outcomes if "ends" in one.scores].count(1.0) == 1


def test_text_goes_on_and_ends_with_the_end_of_text(tokenizer, taught, tmp_path):
    records = [
        {"prompt": prompt, "completion": f" {eval(prompt[:-1])}", "answer": eval(prompt[:-1]), "pattern": r"\d+"}
        for prompt in SUMS
    ]
    rewards = ["number", "training.tuning.reward_functions.format"]
    config = ChatConfig(write(tmp_path / "a.jsonl", records), rewards)
    figures, samples, _ = measure(config, taught, tokenizer, max_new_tokens=8)
    assert {sample["prompt"]: sample["answer"] for sample in samples} == SUMS
    assert figures["ends"].value == 1.0
    by_hand = [int(answer) == eval(prompt[:-1]) for prompt, answer in SUMS.items()]
    assert figures["number"].value == pytest.approx(sum(by_hand) / 3) and sum(by_hand) == 2
    assert figures["format"].value == 1.0
    cost = [
        nats(taught, tokenizer(record["prompt"])["input_ids"], tokenizer(record["completion"])["input_ids"] + [0])
        for record in records
    ]
    assert figures["bits per byte"].value == pytest.approx(sum(cost) / math.log(2) / 6, rel=1e-4)
    assert "reward" not in figures


def long_ones(tmp_path):
    """One that fits, one whose prompt does not, one whose reference does not."""
    sizes = [("sub", "def other(a):\n    pass"), ("x" * 150, "y"), ("sub", "z" * 150)]
    return write(tmp_path / "long.jsonl", [{"instruction": ask, "output": answer} for ask, answer in sizes])


def test_what_does_not_fit_is_left_out_and_counted(tokenizer, taught, scorer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tokenizer, "model_max_length", 128)
    config = ChatConfig(long_ones(tmp_path), reward_model=str(scorer))
    figures, _, _ = measure(config, taught, tokenizer, max_new_tokens=30, context=128)
    counts = {metric: (figure.n, figure.left_out) for metric, figure in figures.items()}
    assert counts == {"ends": (2, 1), "reward": (2, 1), "bits per byte": (1, 2)}
    assert "longer than the specified maximum" not in caplog.text
    scored, samples, _ = measure(config, taught, tokenizer, limit=3, max_new_tokens=60)
    assert scored["ends"].n == 3 and scored["reward"].left_out == 1  # it exceeds the reward model's context
    assert ["reward" in sample for sample in samples].count(False) == 1
    with refused("max_new_tokens", 120, "no room for any prompt", "'chats.some'", "taught", 128):
        measure(config, taught, tokenizer, max_new_tokens=120, context=128)


def test_prompts_alone_have_no_reference(tokenizer, taught, tmp_path):
    config = ChatConfig(write(tmp_path / "a.jsonl", [{"prompt": user("sub"), "pattern": "def.*"}]), ["format"])
    figures, _, _ = measure(config, taught, tokenizer)
    assert figures["format"].value == 1.0 and set(figures) == {"ends", "format", "all"}


def half(completions, **_):
    return [None if content[0]["content"] == GOOD else 0.25 for content in completions]


async def length(completions, completion_ids, log_metric, **_):
    log_metric("completions", len(completions))
    return [len(ids) for ids in completion_ids]


def test_rewards_of_somebodys_own(tokenizer, taught, tmp_path):
    """One scores some answers only; one waits, and asks for what TRL gives beside the columns."""
    config = ChatConfig(write(tmp_path / "a.jsonl", RECORDS), rewards=[f"{__name__}.half", f"{__name__}.length"])
    figures, _, outcomes = measure(config, taught, tokenizer)
    characters = [len(record["messages"][1]["content"]) for record in RECORDS]  # a byte is a token
    assert figures["length"].value == pytest.approx(sum(characters) / 3) and figures["length"].unit == "score"
    assert figures["half"] == Figure(0.25, 0.0, 2, unit="score", left_out=1)
    assert "all" not in figures  # of rewards that are not 1 or 0
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
    "records, facts",
    [
        ([], ["is empty"]),
        ([{"body": "x"}], ["the records of FILE", "body", "messages", "prompt+"]),
        ([{"prompt": "a"}, {"prompt": None}], ["FILE, record 2", "'prompt'", "list of messages"]),
        ([{"prompt": "a"}, {"prompt": user("a")}], ["FILE", "some records are text and some are messages"]),
        ([{"messages": assistant("a")}], ["FILE, record 1", "prompt is empty"]),
        ([{"prompt": ""}], ["FILE, record 1", "prompt is empty"]),
        ([{"messages": user([{"type": "image"}])}], ["FILE, record 1", "not text"]),
        ([{"messages": user("a"), "tools": "[]"}], ["FILE, record 1", "'tools'"]),
        (
            [{"messages": user("a") + [assistant("b")[0] | {"reasoning_content": "c"}]}],
            ["FILE, record 1", "the answer has reasoning_content", "only text can be measured"],
        ),
    ],
)
def test_a_file_at_fault(records, facts, tmp_path):
    file = write(tmp_path / "a.jsonl", records)
    with refused("chats.some.file", *(fact.replace("FILE", file) for fact in facts)):
        open_chat("some", ChatConfig(file), 10, 0)


@pytest.mark.parametrize(
    "rewards, facts",
    [
        (["number"], ["FILE", "number needs the column answer", "pattern"]),
        (["defines"], ["FILE", "defines needs the column name", "pattern"]),
        (["formt"], ["FILE", "no reward", "'formt'", "did you mean 'format'?"]),
        (["format"], ["format failed on record 2 of the data, completion ''"]),
        (["parses", "parses"], ["two metrics would be called 'parses'"]),
        ([f"{__name__}.all"], ["two metrics would be called 'all'"]),
    ],
)
def test_a_reward_at_fault_is_told_before_any_work(rewards, facts, tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": "a", "pattern": "x"}, {"prompt": "b", "pattern": None}])
    with refused("chats.some.rewards", *(fact.replace("FILE", file) for fact in facts)):
        open_chat("some", ChatConfig(file, rewards), 10, 0)


def all(completions, **_):
    return [1.0 for _ in completions]


def test_what_a_template_would_leave_out_is_told_before_any_work(tokenizer, tmp_path):
    tool = [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]}, {"role": "tool", "content": "x"}]
    records = [{"prompt": user("q")}, {"prompt": user("q") + tool}]
    chat = open_chat("some", ChatConfig(write(tmp_path / "a.jsonl", records)), 10, 0)
    with refused("models.m", "taught", "chat template", "does not render tool calls"):
        check_chat(chat, Candidate("models.m", "taught", tokenizer, 160), 60)


def test_a_reward_model_at_fault(tokenizer, tiny_model, scorer, tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": user("q")}])

    def check(folder, *facts):
        with refused("chats.some.reward_model", folder, *facts):
            open_chat("some", ChatConfig(file, reward_model=str(folder)), 10, 0)

    check(tmp_path / "gone", "scratch reward")
    check(tmp_path, "holds no model (no config.json)")
    tiny_model().save_pretrained(tmp_path / "language")
    tokenizer.save_pretrained(tmp_path / "language")
    check(tmp_path / "language", "is a language model", "scratch reward")
    model = LlamaForSequenceClassification.from_pretrained(scorer)
    model.score = torch.nn.Linear(16, 3, bias=False)
    model.config.num_labels = 3
    model.save_pretrained(tmp_path / "labels")
    tokenizer.save_pretrained(tmp_path / "labels")
    check(tmp_path / "labels", "is a classifier")
    model = LlamaForSequenceClassification.from_pretrained(scorer)
    torch.nn.init.constant_(model.score.weight, math.nan)
    model.save_pretrained(tmp_path / "nan")
    tokenizer.save_pretrained(tmp_path / "nan")
    with refused("reward_model", tmp_path / "nan", "score nan"):
        score_conversations(str(tmp_path / "nan"), [(user("q"), assistant("a"))], 1)


def test_a_template_that_will_not_do(tokenizer, tmp_path):
    chat = open_chat("some", ChatConfig(write(tmp_path / "a.jsonl", [{"prompt": user("q")}])), 10, 0)
    template = tokenizer.chat_template
    try:
        for other, fact in [
            (None, "has no chat template"),
            (SCORER_TEMPLATE.replace("<|im_end|>", "."), "not end with a special token"),
            ("{{ raise_exception('users only') }}", "(users only)"),
        ]:
            tokenizer.chat_template = other
            with refused("models.m", "taught", "chat template", fact):
                check_chat(chat, Candidate("models.m", "taught", tokenizer, 160), 60)
    finally:
        tokenizer.chat_template = template


def test_references_with_unknown_characters_have_no_bits_per_byte(tiny_model, tmp_path):
    tokenizer = character_tokenizer(tmp_path / "tokenizer", unknown=True)
    records = [{"question": "A café?", "answer": answer} for answer in ("yes", "né")]
    chat = ChatConfig(file=write(tmp_path / "q.jsonl", records))
    figures, *_ = measure(chat, tiny_model(), tokenizer, max_new_tokens=5)
    assert figures["bits per byte"].n == 1 and figures["bits per byte"].left_out == 1


def test_an_end_token_is_not_an_unknown_character(tokenizer, tiny_model, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.unk_token = tokenizer.eos_token
    chat = ChatConfig(file=write(tmp_path / "q.jsonl", [{"prompt": "Where?", "completion": "Here."}]))
    figures, *_ = measure(chat, tiny_model(), tokenizer, max_new_tokens=5)
    assert figures["bits per byte"].n == 1 and figures["bits per byte"].left_out == 0


def test_conditions_have_no_local_paths(tmp_path):
    """They are published with the results."""
    chats = {"some": ChatConfig(file=str(tmp_path / "q.jsonl"), reward_model=str(tmp_path))}
    folders = {"data": str(tmp_path), "data_dir": str(tmp_path)}
    config = EvaluateConfig(output_dir="out", models={"m": "model"}, chats=chats, tasks=["small"], **folders)
    for measure in (BitsPerByte, Chats, Tasks):
        assert str(tmp_path) not in str(measure(config).conditions())
