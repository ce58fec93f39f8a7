"""Answers to the held-out questions of any file: whether they end, what rewards and a judge give them, and how likely
the model finds the answers that the file has."""

import asyncio
import inspect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.common.estimates import mean_with_stderr
from training.common.recipe import option, required
from training.eval.measures.answers import generate_answers
from training.eval.measures.items import Outcome, identify
from training.eval.measures.preferences import completion_log_probabilities
from training.eval.measures.prompts import Words, check_rendering, encode_completion, encode_prompt, end_token
from training.eval.measures.records import Question, read_questions
from training.eval.measures.reward_model import check_judge, score_conversations
from training.eval.measures.texts import METRIC as BITS
from training.tuning.reward_functions import ALL_OR_NOTHING, content, find_rewards

ENDS, JUDGED = "ends", "reward"  # metrics


@dataclass
class ChatConfig:
    file: str = required("JSON lines: conversations, prompts with or without a completion, alpaca, ShareGPT, questions")
    rewards: list[str] = option(list, "what an answer is worth: names as in reward_funcs of `scratch grpo`")
    judge: str | None = option(None, "a model of `scratch reward`, whose score of an answer is one more measure")


@dataclass(frozen=True)
class Chat:
    """Questions with what their answers are measured by."""

    name: str
    questions: list[Question]
    rewards: list[Callable]
    judge: str | None

    def check(self, tokenizer: PreTrainedTokenizerBase, room: int, model: str, key: str) -> None:
        """Refuse, before any work, a model that cannot be asked.

        Args:
            room: tokens that a prompt may have.
            model, key: its folder, and the key of the recipe that names it.

        Raises:
            UserError: no chat template that would do, or no prompt fits.
        """
        check_rendering(tokenizer, self.questions[0].prompt, model, key)
        if not any(len(encode_prompt(tokenizer, question.prompt)) <= room for question in self.questions):
            raise UserError(
                f"'max_new_tokens': it leaves no room for any prompt of 'chats.{self.name}' in the context of {model} "
                f"({key}); give a smaller number"
            )

    def measure(
        self,
        model: PreTrainedModel,
        writer: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        context: int,
        batch_size: int = 4,
        bf16: bool = False,
        samples: int = 5,
    ) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]], list[Outcome]]:
        """What a model's greedy answers come to.

        Args:
            writer: the same model in the precision in which it answers.
            context: a question is left out whose prompt leaves no room in it for `max_new_tokens`, and from bits per
                byte one whose reference does not fit.
            batch_size: conversations a forward pass, and a sixteenth of the answers that are written at a time.
            samples: how many answers to keep for reading.

        Returns:
            A figure (`value`, None if nothing was judged, `stderr`, `n`, `left_out`, `unit`) a metric; the samples; and
            what came of every item.
        """
        encoded = [encode_prompt(tokenizer, question.prompt) for question in self.questions]
        fitting = [index for index, prompt in enumerate(encoded) if len(prompt) <= context - max_new_tokens]
        asked, prompts = [self.questions[i] for i in fitting], [encoded[i] for i in fitting]
        end = end_token(tokenizer, asked[0].prompt)
        answers = generate_answers(writer, tokenizer, prompts, end, max_new_tokens, 16 * batch_size)
        texts = [text for text, _ in answers]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        scores = {ENDS: [float(ended) for _, ended in answers]} | self.pay(asked, texts, ids)
        if self.judge:
            pairs = [(question.prompt, _completion(question, text)) for question, text in zip(asked, texts)]
            scores[JUDGED] = score_conversations(self.judge, pairs, batch_size, f"chats.{self.name}.judge")
        rows = [
            {metric: values[place] for metric, values in scores.items() if values[place] is not None}
            for place in range(len(asked))
        ]
        figures = {metric: _figure(metric, values, len(self.questions)) for metric, values in scores.items()}
        outcomes = [Outcome(f"chats: {self.name}", identify(one.prompt), row) for one, row in zip(asked, rows)]
        kept = [
            {"prompt": tokenizer.decode(prompt), "answer": text, **row}
            for prompt, text, row in list(zip(prompts, texts, rows))[:samples]
        ]
        answered = [question for question in self.questions if question.reference]
        if answered:
            costs = self._cost(answered, model, tokenizer, context, batch_size, bf16)
            rates, sizes = [cost.scores[BITS] for cost in costs], [cost.weight for cost in costs]
            figures[BITS] = _figure(BITS, rates, len(answered), sizes)
            outcomes += costs
        return figures, kept, outcomes

    def pay(self, questions: list[Question], texts: list[str], ids: list[list[int]]) -> dict[str, list[float | None]]:
        """What each reward gives for each answer; None where it does not judge.

        Args:
            ids: the tokens of the texts.

        Raises:
            UserError: a reward failed; it names the record.
        """
        given: dict[str, Any] = {
            column: [question.columns[column] for question in questions] for column in questions[0].columns
        }
        given["prompts"] = [question.prompt for question in questions]
        given["completions"] = [_completion(question, text) for question, text in zip(questions, texts)]
        given |= {"completion_ids": ids, "trainer_state": None, "log_extra": _ignore, "log_metric": _ignore}
        paid = {}
        for reward in self.rewards:
            values = asyncio.run(reward(**given)) if inspect.iscoroutinefunction(reward) else reward(**given)
            paid[reward.__name__] = [value if value is None else float(value) for value in values]
        return paid

    def _cost(
        self,
        answered: list[Question],
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        batch_size: int,
        bf16: bool,
    ) -> list[Outcome]:
        """Bits per byte of the file's own answers, given their prompts, of those that fit. The token that ends one
        costs bits, and counts no bytes."""
        pairs = [encode_completion(tokenizer, question.prompt, question.reference) for question in answered]
        fitting = [index for index, pair in enumerate(pairs) if sum(map(len, pair)) <= context]
        nats = -completion_log_probabilities(model, [pairs[index] for index in fitting], batch_size, bf16)
        outcomes = []
        for index, cost in zip(fitting, nats.tolist()):
            question = answered[index]
            size = len(content(question.reference).encode())
            item = identify([question.prompt, question.reference])
            outcomes.append(Outcome(f"references: {self.name}", item, {BITS: cost / math.log(2) / size}, size))
        return outcomes


def open_chat(name: str, config: ChatConfig, limit: int, seed: int) -> Chat:
    """The questions of a file, and what their answers are measured by, seen to be there before any work.

    Args:
        limit: how many to ask, drawn with `seed`.

    Raises:
        UserError: no such file, records of another shape, a reward or a judge that cannot be had, or a record that a
            reward does not take.
    """
    key = f"chats.{name}"
    questions = read_questions(config.file, f"{key}.file")
    questions = random.Random(seed).sample(questions, min(limit, len(questions)))
    rewards = []
    if config.rewards:
        columns = list(questions[0].columns)
        rewards = find_rewards(config.rewards, columns, config.file, f"{key}.rewards", "its records")
    names = [ENDS, JUDGED, BITS, *(reward.__name__ for reward in rewards)]
    for metric in names:
        if names.count(metric) > 1:
            raise UserError(f"'{key}.rewards': two measures would be called '{metric}'; give a function another name")
    if config.judge:
        check_judge(config.judge, questions[0].prompt, f"{key}.judge")
    chat = Chat(name, questions, rewards, config.judge)
    chat.pay(questions, [""] * len(questions), [[]] * len(questions))  # a record that a reward does not take
    return chat


def _completion(question: Question, text: str) -> Words:
    return text if isinstance(question.prompt, str) else [{"role": "assistant", "content": text}]


def _figure(metric: str, values: list[float | None], asked: int, weights: list[float] | None = None) -> dict[str, Any]:
    """The mean of what was judged; without a value if nothing was."""
    known = [value for value in values if value is not None]
    unit = "share" if metric == ENDS or metric in ALL_OR_NOTHING else "number"
    figure = mean_with_stderr(known, weights) if known else {"value": None, "stderr": None, "n": 0}
    return {**figure, "left_out": asked - len(known), "unit": unit}


def _ignore(*_: Any, **__: Any) -> None:
    """In the place of what a reward may log in training."""
