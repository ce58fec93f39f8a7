"""Answers to held-out instructions, judged by reading them: no generated code is ever executed."""

import ast
import random
import warnings
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.common.estimates import proportion
from training.common.progress import progress_bar
from training.eval.measures.items import Outcome, identify
from training.eval.measures.prompts import encode_prompt, end_token

CHECKS = ("parses", "defines", "ends", "all_three")


def judge(answer: str, name: str, ended: bool) -> dict[str, bool]:
    """What can be said of an answer without running it.

    Args:
        answer: the generated text, control tokens removed.
        name: the function that was asked for.
        ended: whether the model closed its turn by itself.

    Returns:
        `parses`: the answer is Python with at least one statement; `defines`: a top-level function has the name;
        `ends`; `all_three`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in a string the model made up
            statements = ast.parse(answer).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # all of which ast.parse may raise on odd text
        statements = []
    functions = {node.name for node in statements if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    verdict = {"parses": bool(statements), "defines": name in functions, "ends": ended}
    return {**verdict, "all_three": all(verdict.values())}


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    end: int,
    max_new_tokens: int,
    batch_size: int,
) -> list[tuple[str, bool]]:
    """Greedy continuations, in the order of the prompts: the text, and whether it ended as it should.

    Args:
        prompts: token ids.
        end: the token that closes a turn, such as `<|im_end|>`. Generation stops at it or at the tokenizer's end of
            text; only the first counts as an end.
    """
    stops = [token for token in dict.fromkeys([end, tokenizer.eos_token_id]) if token is not None]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    # Neighbours of like length waste little padding; the longest batch first, so that memory runs out early or never.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    answers: list[tuple[str, bool]] = [("", False)] * len(prompts)
    with progress_bar(total=len(prompts), desc="answers", unit="answer", leave=False) as bar:
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            width = len(prompts[chosen[0]])
            rows = [[padding] * (width - len(prompts[index])) + prompts[index] for index in chosen]
            mask = [[0] * (width - len(prompts[index])) + [1] * len(prompts[index]) for index in chosen]
            generated = model.generate(
                input_ids=torch.tensor(rows, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=stops,
                pad_token_id=padding,
            )[:, width:]  # (batch, new)
            for index, new in zip(chosen, generated.tolist()):
                stop = next((place for place, token in enumerate(new) if token in stops), None)
                text = tokenizer.decode(new[:stop], skip_special_tokens=True)
                answers[index] = (text, stop is not None and new[stop] == end)
            bar.update(len(chosen))
    return answers


def measure_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: list[dict[str, Any]],
    limit: int,
    max_new_tokens: int,
    context: int,
    batch_size: int = 64,
    seed: int = 0,
    samples: int = 5,
) -> tuple[dict[str, Any], list[Outcome]]:
    """Shares of answers that parse, define the function asked for and end by themselves.

    Args:
        records: instruction records (`messages`, `name`); the last message is the reference and is not shown.
        limit: how many to ask, drawn with `seed`.
        context: the model's trained length; a prompt that leaves no room for `max_new_tokens` is left out, counted.
        samples: how many answers to keep for reading.

    Returns:
        A share (`value`, `stderr`, `n`) under each name in `CHECKS`; `left_out`; `samples`; and what came of every
        question.

    Raises:
        UserError: no prompt fits.
    """
    picked = random.Random(seed).sample(records, min(limit, len(records)))
    questions = [record["messages"][:-1] for record in picked]
    prompts = [encode_prompt(tokenizer, question) for question in questions]
    fitting = [index for index, prompt in enumerate(prompts) if len(prompt) <= context - max_new_tokens]
    if not fitting:
        raise UserError(
            f"'max_new_tokens': no instruction leaves room for {max_new_tokens} new tokens "
            f"in a context of {context}; give a smaller number"
        )
    names = [picked[i]["name"] for i in fitting]
    end = end_token(tokenizer, questions[0])
    answers = generate_answers(model, tokenizer, [prompts[i] for i in fitting], end, max_new_tokens, batch_size)
    verdicts = [judge(text, name, ended) for (text, ended), name in zip(answers, names)]
    outcomes = [
        Outcome("answers", identify(questions[i]), {check: float(verdict[check]) for check in CHECKS})
        for i, verdict in zip(fitting, verdicts)
    ]
    return {
        **{check: proportion([verdict[check] for verdict in verdicts]) for check in CHECKS},
        "left_out": len(prompts) - len(fitting),
        "samples": [
            {"prompt": tokenizer.decode(prompts[i]), "answer": text, **verdict}
            for i, (text, _), verdict in list(zip(fitting, answers, verdicts))[:samples]
        ],
    }, outcomes
