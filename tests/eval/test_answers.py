"""Answers: the judge on hand-written texts, generation on a model that learnt three answers by heart."""

import pytest
import torch

from training.errors import UserError
from training.eval.answers import generate_answers, judge, measure_answers

GOOD = "def add(a, b):\n    return a + b"
RECORDS = [
    {"name": "add", "content": "add, please", "answer": GOOD},
    {"name": "sub", "content": "sub", "answer": "def other(a):\n    pass"},
    {"name": "mul", "content": "and now a product", "answer": "def mul(a:"},
]
RECORDS = [
    {
        "messages": [
            {"role": "user", "content": record["content"]},
            {"role": "assistant", "content": record["answer"]},
        ],
        "name": record["name"],
    }
    for record in RECORDS
]


@pytest.mark.parametrize(
    "answer, parses, defines",
    [
        (GOOD, True, True),
        ("async def add():\n    pass", True, True),
        ("@cache\ndef add():\n    pass", True, True),
        ("import math\n\ndef add(): return math.pi\n", True, True),
        ("def other(a): pass", True, False),
        ("class add:\n    def add(self): pass", True, False),  # a method is not a top-level function
        ("def add(a, b):\n    return a +", False, False),
        ("    def add(): pass", False, False),
        ("", False, False),  # an empty text is valid Python, but no answer
        ("# add", False, False),
        ("def add():\n    return '\\d'", True, True),  # an invalid escape only warns
        ("\0", False, False),
        ("(" * 5000, False, False),
    ],
)
def test_judge(answer, parses, defines):
    verdict = judge(answer, "add", ended=True)
    assert verdict == {"parses": parses, "defines": defines, "ends": True, "all_three": parses and defines}
    assert judge(answer, "add", ended=False)["all_three"] is False


def test_judge_never_executes(tmp_path):
    trace = tmp_path / "executed"
    assert judge(f"open({str(trace)!r}, 'w')\ndef add(): pass", "add", True)["all_three"]
    assert not trace.exists()


@pytest.fixture(scope="module")
def taught(tokenizer, tiny_model):
    """A model overfitted to RECORDS."""
    model = tiny_model(spread=0.05).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    texts = [tokenizer.apply_chat_template(record["messages"], tokenize=False) for record in RECORDS]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(120):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_measures_a_model_that_knows_the_answers(tokenizer, taught):
    result, outcomes = measure_answers(taught, tokenizer, RECORDS, limit=10, max_new_tokens=60, context=256)
    shares = {check: result[check]["value"] for check in ("parses", "defines", "ends", "all_three")}
    assert shares == {"parses": 2 / 3, "defines": 1 / 3, "ends": 1.0, "all_three": 1 / 3}
    assert {sample["answer"] for sample in result["samples"]} == {r["messages"][1]["content"] for r in RECORDS}
    assert result["all_three"]["n"] == 3 and result["left_out"] == 0
    assert len({outcome.item for outcome in outcomes}) == 3
    assert sum(outcome.scores["parses"] for outcome in outcomes) == 2


def test_an_answer_cut_by_the_limit_does_not_end(tokenizer, taught):
    result, _ = measure_answers(taught, tokenizer, RECORDS[:1], limit=1, max_new_tokens=len(GOOD), context=256)
    assert result["samples"][0]["answer"] == GOOD
    assert result["ends"]["value"] == 0 and result["defines"]["value"] == 1


def test_end_of_text_stops_but_does_not_end_the_turn(tokenizer, tiny_model):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # equal logits everywhere: greedy takes token 0, <|endoftext|>
    assert generate_answers(model, tokenizer, ["def"], max_new_tokens=5, batch_size=1) == [("", False)]


def test_batches_and_their_padding_change_nothing(tokenizer, tiny_model):
    model = tiny_model(seed=1)
    prompts = ["a", "def f():", "x" * 40, "some words here", "b" * 17]
    together = generate_answers(model, tokenizer, prompts, max_new_tokens=20, batch_size=3)
    alone = [generate_answers(model, tokenizer, [prompt], 20, 1)[0] for prompt in prompts]
    assert together == alone
    assert len({text for text, _ in together}) > 1


def test_prompts_without_room_are_left_out_and_counted(tokenizer, taught):
    length = len(tokenizer(tokenizer.apply_chat_template(RECORDS[1]["messages"][:1], tokenize=False))["input_ids"])
    context = length + len("<|im_start|>assistant\n") + 8  # room for the shortest prompt only
    result, _ = measure_answers(taught, tokenizer, RECORDS, limit=3, max_new_tokens=16, context=context)
    assert result["parses"]["n"] == 1 and result["left_out"] == 2
    with pytest.raises(UserError, match="max_new_tokens"):
        measure_answers(taught, tokenizer, RECORDS, limit=3, max_new_tokens=250, context=256)


def test_the_seed_chooses_the_records(tokenizer, taught):
    def asked(seed):
        result, _ = measure_answers(taught, tokenizer, RECORDS, limit=1, max_new_tokens=1, context=256, seed=seed)
        return result["samples"][0]["prompt"]

    assert asked(0) == asked(0)
    assert len({asked(seed) for seed in range(10)}) > 1
