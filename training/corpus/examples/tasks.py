"""Multiple-choice items for lm-eval, from functions of held-out packages. Four choices each: chance is 25 %."""

from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from training.corpus.examples.distractors import DistractorPicker
from training.corpus.examples.functions import Function
from training.corpus.examples.pairs import count_tokens

CHOICES = 4
_LENGTH_TOLERANCE = 0.25  # of the right choice's tokens


Item = dict[str, Any]


def body_choice(functions: Sequence[Function], tokenizer: Tokenizer, count: int, seed: int) -> list[Item]:
    """Items that ask which body belongs to a signature and summary."""
    return _items(functions, lambda item: item.signature, lambda item: item.body, tokenizer, count, seed)


def docstring_choice(functions: Sequence[Function], tokenizer: Tokenizer, count: int, seed: int) -> list[Item]:
    """Items that ask which summary belongs to a def line."""

    def docstring(function: Function) -> str:
        return f'{function.indent}"""{function.summary}"""'

    return _items(functions, lambda item: item.header, docstring, tokenizer, count, seed)


def _items(
    functions: Sequence[Function],
    query: Callable[[Function], str],
    answer: Callable[[Function], str],
    tokenizer: Tokenizer,
    count: int,
    seed: int,
) -> list[Item]:
    """Up to `count` items `{query, choices, gold}`; the right choice takes each position equally often."""
    answers = [answer(function) for function in functions]
    lengths = count_tokens(answers, tokenizer)
    picker = DistractorPicker(lengths, [function.group for function in functions], seed)
    items = []
    for index, function in enumerate(functions):
        if len(items) == count:
            break
        distinct = {answers[index]: index}
        for other in picker.candidates(index, _LENGTH_TOLERANCE * lengths[index]):
            distinct.setdefault(answers[other], other)
            if len(distinct) == CHOICES:
                break
        else:
            continue
        _, *wrong = distinct.values()
        for other in wrong:
            picker.use(other)
        gold = len(items) % CHOICES
        choices = [answers[other] for other in wrong]
        choices.insert(gold, answers[index])
        items.append(
            {"query": query(function), "choices": choices, "gold": gold, "name": function.name, "group": function.group}
        )
    return items


TASKS = {"body_choice": body_choice, "docstring_choice": docstring_choice}
