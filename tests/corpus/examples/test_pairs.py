"""Functions, and the instruction, preference and task records made of them."""

import ast
import random
from collections import Counter

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from training.corpus.examples.distractors import DistractorPicker
from training.corpus.examples.functions import fingerprints, mine_functions, parse_function
from training.corpus.examples.pairs import LENGTH_TOLERANCE, count_tokens, fitting, instruction, preferences
from training.corpus.examples.tasks import body_choice, docstring_choice
from training.corpus.sources import Document

PLAIN = '''def scale(values, by=2,
          start=0):
    """Multiply each value by a factor.

    Args:
        values: numbers.
    """

    # The start is added first.
    return [by * (start + value) for value in values]
'''


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level, one token a byte, with the chat template's shape."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: number for number, token in enumerate(special + alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|pad|>")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    return tokenizer


@pytest.fixture(scope="module")
def functions():
    """Two hundred distinct functions from ten packages, of many lengths."""
    draw = random.Random(0)
    documents = []
    for package in range(10):
        text = "import os\n"
        for number in range(20):
            word = "".join(draw.choices("abcdefghij", k=draw.randint(4, 9)))
            steps = "\n".join(f"    {word} += {draw.randint(0, 10**6)}" for _ in range(draw.randint(1, 12)))
            text += (
                f'\n\ndef {word}_{number}({word}):\n    """Count the {word} up to {number * package}."""\n'
                f"{steps}\n    return {word}\n"
            )
        documents.append(Document(f"{package}.py", f"package{package}", text))
    return list(mine_functions(documents))


def test_parts_of_a_function():
    function = parse_function(PLAIN, "package")
    assert function.name == "scale"
    assert function.header == "def scale(values, by=2,\n          start=0):"
    assert function.summary == "Multiply each value by a factor."
    assert function.body == "    # The start is added first.\n    return [by * (start + value) for value in values]"
    assert function.signature == function.header + '\n    """Multiply each value by a factor."""'
    scope = {}
    exec(function.source, scope)
    assert scope["scale"]([1, 2], start=1) == [4, 6]


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return x + 1\n",
        'def f(x):\n    """Say what it does."""\n',
        'def f(x):\n    """Say what it does."""\n    pass\n',
        'def f(x):\n    """Say what it does."""\n    ...\n',
        'def f(x):\n    """Say what it does."""\n    raise NotImplementedError\n',
        'def f(x):\n    """Say what it does."""\n    raise NotImplementedError("later")\n',
        'def f(x):\n    """Say what it does\n    over two lines."""\n    return x\n',
        'def f(x): "Say what it does."; return x\n',
        'def f(x):\n    """Short."""\n    return x\n',
        'def f(x):\n    """Split at <|endoftext|> marks."""\n    return x\n',
        'def f(x):\n    """Say what it does."""\n    return x +\n',
    ],
)
def test_functions_that_teach_nothing_are_left_out(source):
    assert parse_function(source, "package") is None


def test_mining_takes_plain_module_level_functions_once():
    text = f"""import functools


{PLAIN}

@functools.cache
def decorated(x):
    \"\"\"Return the square of x.\"\"\"
    return x * x


class Thing:

    def method(self):
        \"\"\"Return the name of the thing.\"\"\"
        return self.name


def outer(x):
    \"\"\"Return a function of one argument.\"\"\"
    def inner(y):
        return x + y
    return inner


{PLAIN}
def last(x):
    \"\"\"Return the last of the items.\"\"\"
    return x[-1]
LAST = last([1])
"""
    mined = list(mine_functions([Document("a", "a", text), Document("b", "b", PLAIN)]))
    assert [function.name for function in mined] == ["scale", "last"]
    assert mined[1].body == "    return x[-1]"


def test_mined_functions_share_nothing(functions):
    assert len(functions) == 200
    prints = Counter(text for function in functions for text in fingerprints(function))
    assert max(prints.values()) == 1


def test_instructions_ask_and_answer(functions):
    for function in functions:
        record = instruction(function)
        user, assistant = record["messages"]
        assert user["content"] == f"Write this Python function.\n\n{function.signature}"
        (node,) = ast.parse(assistant["content"]).body
        assert (node.name, ast.get_docstring(node)) == (record["name"], function.summary)
        assert assistant["content"].startswith(function.signature + "\n")


def test_instructions_fit_the_limit(functions, tokenizer):
    kept = list(fitting(functions, tokenizer, 300))
    assert 0 < len(kept) < len(functions)
    for function in functions:
        ids = tokenizer.apply_chat_template(instruction(function)["messages"], tokenize=True, return_dict=False)
        assert (len(ids) <= 300) == (function in kept)


def test_rejected_answers_differ_in_the_body_alone(functions, tokenizer):
    records = preferences(functions, tokenizer.backend_tokenizer, seed=0)
    assert len(records) > 150
    bodies = {function.body for function in functions}
    by_name = {function.name: function for function in functions}
    used = Counter()
    for record in records:
        function = by_name[record["name"]]
        (chosen,), (rejected,) = record["chosen"], record["rejected"]
        assert chosen["content"] == function.source
        assert rejected["content"].startswith(function.signature + "\n")
        body = rejected["content"].removeprefix(function.signature + "\n")
        assert body in bodies - {function.body}
        used[body] += 1
        (node,) = ast.parse(rejected["content"]).body
        assert node.name == record["name"]
        right, wrong = count_tokens([chosen["content"], rejected["content"]], tokenizer.backend_tokenizer)
        assert abs(right - wrong) <= LENGTH_TOLERANCE * right
    assert max(used.values()) <= 3  # a body seen alone is about as often right as wrong
    assert records == preferences(functions, tokenizer.backend_tokenizer, seed=0)


def test_a_tokenizer_file_that_truncates_and_pads_counts_all_tokens(tokenizer):
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    assert count_tokens(["a" * 3, "b" * 12], backend) == [3, 12]


@pytest.mark.parametrize("make", [body_choice, docstring_choice])
def test_tasks_have_one_right_choice_in_every_place(functions, tokenizer, make):
    items = make(functions, tokenizer.backend_tokenizer, 100, seed=0)
    assert len(items) == 100
    assert Counter(item["gold"] for item in items) == {0: 25, 1: 25, 2: 25, 3: 25}
    by_name = {function.name: function for function in functions}
    for item in items:
        function = by_name[item["name"]]
        assert len(set(item["choices"])) == 4
        # Query, choice and (for docstrings) the body are consecutive lines of the source.
        assert f"{item['query']}\n{item['choices'][item['gold']]}" in function.source
        lengths = count_tokens(item["choices"], tokenizer.backend_tokenizer)
        right = lengths[item["gold"]]
        assert all(abs(length - right) <= 0.25 * right for length in lengths)


def test_matcher_prefers_the_unused_then_the_same_group_then_the_nearest():
    matcher = DistractorPicker([10, 12, 11, 50, 9], ["a", "a", "b", "a", "a"], seed=0)
    assert matcher.candidates(0, tolerance=2).tolist() == [4, 1, 2]
    matcher.use(4)
    assert matcher.candidates(0, tolerance=2).tolist() == [1, 2, 4]
    assert matcher.candidates(3, tolerance=2).tolist() == []
