"""Answers: the judge on hand-written texts, generation on a model that learnt three answers by heart."""

import pytest
import torch
from taught import GOOD, RECORDS

from training.common.errors import UserError
from training.eval.measures.answers import generate_answers, judge, measure_answers


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
    prompt, end = tokenizer("def")["input_ids"], tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert generate_answers(model, tokenizer, [prompt], end, max_new_tokens=5, batch_size=1) == [("", False)]
    assert generate_answers(model, tokenizer, [prompt], 0, max_new_tokens=5, batch_size=1) == [("", True)]  # of a text


def test_batches_and_their_padding_change_nothing(tokenizer, tiny_model):
    model = tiny_model(seed=1)
    prompts = tokenizer(["a", "def f():", "x" * 40, "some words here", "b" * 17])["input_ids"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    together = generate_answers(model, tokenizer, prompts, end, max_new_tokens=20, batch_size=3)
    alone = [generate_answers(model, tokenizer, [prompt], end, 20, 1)[0] for prompt in prompts]
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
