"""Generated answers, on a model that learnt three of them by heart; and what `parses` and `defines` say of answers."""

import json

import pytest
import torch
from messages import refused
from taught import GOOD, RECORDS

from training.eval.measures.chats import check_chat, measure_chat, open_chat
from training.eval.measures.config import ChatConfig
from training.eval.measures.figures import MetricKey
from training.eval.measures.generation import generate_answers
from training.eval.measures.measure import Candidate, LoadedModel
from training.tuning.reward_functions import defines, parses

ASKED = [{"role": "user", "content": "Write add."}]


@pytest.mark.parametrize(
    "answer, valid, defined",
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
def test_parses_and_defines(answer, valid, defined):
    completions = [[{"role": "assistant", "content": answer}]]
    assert parses(prompts=[ASKED], completions=completions) == [float(valid)]
    assert defines(prompts=[ASKED], completions=completions, name=["add"]) == [float(defined)]


def test_answers_are_never_executed(tmp_path):
    trace = tmp_path / "executed"
    completions = [[{"role": "assistant", "content": f"open({str(trace)!r}, 'w')\ndef add(): pass"}]]
    assert defines(prompts=[ASKED], completions=completions, name=["add"]) == [1.0]
    assert not trace.exists()


@pytest.fixture
def measure(tokenizer, taught, tmp_path):
    """Measures `taught` on instruction records, as `scratch prepare` writes them."""

    def run(records=RECORDS, limit=10, max_new_tokens=60, context=256, seed=0):
        file = tmp_path / "validation.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        chat = open_chat("functions", ChatConfig(str(file), rewards=["parses", "defines"]), limit, seed)
        candidate = Candidate("models.m", "taught", tokenizer, context)
        check_chat(chat, candidate, max_new_tokens)
        result = measure_chat(chat, LoadedModelOf(taught, candidate), max_new_tokens)
        figures = {key.metric: figure for key, figure in result.figures.items()}
        assert set(result.figures) == {MetricKey("chats", "functions", metric) for metric in figures}
        return figures, result.samples["functions"], result.outcomes

    return run


class LoadedModelOf(LoadedModel):
    """A model that generates as it is, instead of loading its folder again."""

    def __init__(self, model, candidate):
        super().__init__(**vars(candidate), model=model)
        self.__dict__["generation_model"] = model


def test_measures_a_model_that_knows_the_answers(measure):
    figures, samples, outcomes = measure()
    shares = {check: figures[check].value for check in ("ends", "parses", "defines", "all")}
    assert shares == {"ends": 1.0, "parses": 2 / 3, "defines": 1 / 3, "all": 1 / 3}
    assert {sample["answer"] for sample in samples} == {r["messages"][1]["content"] for r in RECORDS}
    assert figures["all"].n == 3 and figures["all"].left_out == 0
    asked = [outcome for outcome in outcomes if "ends" in outcome.scores]
    assert len({outcome.item for outcome in asked}) == 3
    assert sum(outcome.scores["parses"] for outcome in asked) == 2


def test_an_answer_cut_by_the_limit_does_not_end(measure):
    figures, samples, _ = measure(RECORDS[:1], limit=1, max_new_tokens=len(GOOD))
    assert samples[0]["answer"] == GOOD
    assert figures["ends"].value == 0 and figures["defines"].value == 1 and figures["all"].value == 0


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


def test_prompts_without_room_are_left_out_and_counted(tokenizer, measure):
    length = len(tokenizer(tokenizer.apply_chat_template(RECORDS[1]["messages"][:1], tokenize=False))["input_ids"])
    context = length + len("<|im_start|>assistant\n") + 8  # room for the shortest prompt only
    figures, _, _ = measure(limit=3, max_new_tokens=16, context=context)
    assert figures["parses"].n == 1 and figures["parses"].left_out == 2 and figures["all"].left_out == 2
    with refused("max_new_tokens", 250, 256):
        measure(limit=3, max_new_tokens=250)


def test_the_seed_chooses_the_records(measure):
    def asked(seed):
        _, samples, _ = measure(limit=1, max_new_tokens=1, seed=seed)
        return samples[0]["prompt"]

    assert asked(0) == asked(0)
    assert len({asked(seed) for seed in range(10)}) > 1
