"""Generated answers to held-out questions: whether they end, their rewards, and the likelihood of reference answers."""

import asyncio
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from training.common.errors import UserError
from training.corpus.output.card import shown_path
from training.eval.measures.bits_per_byte import bits_per_byte
from training.eval.measures.config import ChatConfig
from training.eval.measures.continuations import score_continuations
from training.eval.measures.figures import (
    ALL,
    BITS,
    ENDS,
    REWARD,
    Figure,
    ItemOutcome,
    MeasureResult,
    MetricKey,
    Unit,
    figure_of,
    identify,
)
from training.eval.measures.generation import generate_answers
from training.eval.measures.measure import Candidate, LoadedModel, Measure
from training.eval.measures.prompts import check_rendering, encode_completion, end_token
from training.eval.measures.records import Question, read_questions
from training.eval.measures.reward_model import check_reward_model, score_conversations
from training.model_io.conversations import encode_prompt
from training.model_io.tokenizers import unknown_token_id
from training.tuning.reward_functions import ALL_OR_NOTHING, Answer, content, find_rewards

SAMPLES = 5  # answers per chat kept for reading
GENERATED = 16  # answers generated at a time per sequence of the batch size: generation needs less memory per sequence
Scores = dict[str, list[float | None]]  # by metric, one per answer; None for an answer that was not scored


class Chats(Measure):
    """Answers to the questions of each file in `chats`, generated greedily."""

    kind = "chats"

    def prepare(self) -> None:
        limit, seed = self.config.limits.chats, self.config.seed
        self.chats = [open_chat(name, chat, limit, seed) for name, chat in self.config.chats.items()]

    def check(self, candidate: Candidate) -> None:
        for chat in self.chats:
            check_chat(chat, candidate, self.config.max_new_tokens)

    def inputs(self) -> dict[str, str]:
        files = {f"chats.{name}.file": chat.file for name, chat in self.config.chats.items()}
        scorers = {f"chats.{name}.reward_model": chat.reward_model for name, chat in self.config.chats.items()}
        return files | {key: folder for key, folder in scorers.items() if folder}

    def conditions(self) -> dict[str, str]:
        found = {
            "chats": f"greedy, up to {self.config.max_new_tokens} new tokens; bits per byte of reference answers given "
            "their prompts: the token that ends one costs bits and counts no bytes"
        }
        scorers = [
            f"{name}: {shown_path(chat.reward_model)}" for name, chat in self.config.chats.items() if chat.reward_model
        ]
        return found | ({"reward models": ", ".join(scorers)} if scorers else {})

    def run(self, model: LoadedModel) -> MeasureResult:
        result = MeasureResult()
        for chat in self.chats:
            result.add(measure_chat(chat, model, self.config.max_new_tokens))
        return result


@dataclass(frozen=True)
class Chat:
    """The questions of one file, and what scores their answers."""

    name: str
    questions: list[Question]
    rewards: list[Callable]
    reward_model: str | None


def open_chat(name: str, config: ChatConfig, limit: int, seed: int) -> Chat:
    """Read the questions of a file, and check everything that scores their answers.

    Args:
        limit: maximum number of questions, drawn with `seed`.

    Raises:
        UserError: no such file, unknown format, unknown reward function or unsuitable reward model, or a record that
            lacks what a reward function needs.
    """
    key = f"chats.{name}"
    questions = read_questions(config.file, f"{key}.file")
    read = len(questions)
    questions = random.Random(seed).sample(questions, min(limit, read))
    print(f"evaluate: {key}: {read:,} questions, {len(questions):,} asked")
    rewards = []
    if config.rewards:
        columns = list(questions[0].columns)
        rewards = find_rewards(config.rewards, columns, config.file, f"{key}.rewards", "its records")
    metrics = [ENDS, ALL, REWARD, BITS, *(reward.__name__ for reward in rewards)]
    for metric in metrics:
        if metrics.count(metric) > 1:
            raise UserError(f"'{key}.rewards': two metrics would be called '{metric}'; rename the function")
    if config.reward_model:
        prompts = [question.prompt for question in questions]
        check_reward_model(config.reward_model, prompts, f"{key}.reward_model")
    apply_rewards(rewards, questions, [""] * len(questions), [[]] * len(questions))  # fails if a record lacks a column
    return Chat(name, questions, rewards, config.reward_model)


def check_chat(chat: Chat, candidate: Candidate, max_new_tokens: int) -> None:
    """Reject, before any work, a model that cannot be asked these questions.

    Raises:
        UserError: unsuitable chat template, or no prompt leaves room for an answer.
    """
    tokenizer = candidate.tokenizer
    conversations = [[each.prompt, each.reference] if each.reference else [each.prompt] for each in chat.questions]
    check_rendering(tokenizer, conversations, candidate.folder, candidate.key)
    room = candidate.context - max_new_tokens
    if not any(len(encode_prompt(tokenizer, question.prompt)) <= room for question in chat.questions):
        raise UserError(
            f"'max_new_tokens': {max_new_tokens} leaves no room for any prompt of 'chats.{chat.name}' in the context "
            f"of {candidate.folder} ({candidate.key}), {candidate.context} tokens; give a smaller number"
        )


def measure_chat(chat: Chat, model: LoadedModel, max_new_tokens: int, samples: int = SAMPLES) -> MeasureResult:
    """Score a model's greedy answers, and its likelihood of the reference answers.

    A question whose prompt leaves no room for `max_new_tokens` in the context is left out, and so is a reference answer
    that does not fit with its prompt.

    Args:
        samples: answers to keep for reading.
    """
    encoded = [encode_prompt(model.tokenizer, question.prompt) for question in chat.questions]
    fitting = [index for index, prompt in enumerate(encoded) if len(prompt) <= model.context - max_new_tokens]
    questions, prompts = [chat.questions[i] for i in fitting], [encoded[i] for i in fitting]
    end = end_token(model.tokenizer, questions[0].prompt)
    batch_size = GENERATED * model.batch_size
    answers = generate_answers(model.generation_model, model.tokenizer, prompts, end, max_new_tokens, batch_size)
    scores = score_answers(chat, questions, answers, model.tokenizer, model.batch_size)

    left_out = len(chat.questions) - len(questions)
    result = MeasureResult()
    for metric, values in scores.items():
        result.figures[MetricKey(Chats.kind, chat.name, metric)] = figure_of(values, unit_of(metric), left_out=left_out)
    rows = [
        {metric: values[place] for metric, values in scores.items() if values[place] is not None}
        for place in range(len(questions))
    ]
    result.outcomes = [
        ItemOutcome(Chats.kind, chat.name, identify(question.prompt), row) for question, row in zip(questions, rows)
    ]
    result.samples[chat.name] = [
        {"prompt": model.tokenizer.decode(prompt), "answer": text, **row}
        for prompt, (text, _), row in list(zip(prompts, answers, rows))[:samples]
    ]
    if any(question.reference for question in chat.questions):
        figure, outcomes = measure_references(chat, model)
        result.add(MeasureResult({MetricKey(Chats.kind, chat.name, BITS): figure}, outcomes))
    return result


def unit_of(metric: str) -> Unit:
    """The unit "share" for what is 1 or 0 for each answer, else "score"."""
    return "share" if metric in (ENDS, ALL) or metric in ALL_OR_NOTHING else "score"


def score_answers(
    chat: Chat,
    questions: list[Question],
    answers: list[tuple[str, bool]],
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
) -> Scores:
    """Scores of answers by metric: the end, each reward function, all of these, and the reward model.

    Args:
        answers: the text of each, and whether it ended before `max_new_tokens`.
        batch_size: conversations per forward pass of the reward model.
    """
    texts = [text for text, _ in answers]
    ends: Scores = {ENDS: [float(ended) for _, ended in answers]}
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    rewards = apply_rewards(chat.rewards, questions, texts, ids)
    scores = ends | rewards
    checks = [values for metric, values in rewards.items() if unit_of(metric) == "share"]
    if checks:
        scores[ALL] = [None if None in row else min(row) for row in zip(ends[ENDS], *checks)]
    if chat.reward_model:
        pairs = [(question.prompt, as_completion(question, text)) for question, text in zip(questions, texts)]
        key = f"chats.{chat.name}.reward_model"
        scores[REWARD] = score_conversations(chat.reward_model, pairs, batch_size, key)
    return scores


def apply_rewards(rewards: list[Callable], questions: list[Question], texts: list[str], ids: list[list[int]]) -> Scores:
    """The rewards of answers, by name of the reward function.

    Args:
        texts, ids: the answers as text and as token ids.

    Raises:
        UserError: a reward function failed; it names the record.
    """
    arguments: dict[str, Any] = {
        column: [question.columns[column] for question in questions] for column in questions[0].columns
    }
    arguments["prompts"] = [question.prompt for question in questions]
    arguments["completions"] = [as_completion(question, text) for question, text in zip(questions, texts)]
    arguments |= {"completion_ids": ids, "trainer_state": None, "log_extra": _ignore, "log_metric": _ignore}
    scores: Scores = {}
    for reward in rewards:
        found = asyncio.run(reward(**arguments)) if inspect.iscoroutinefunction(reward) else reward(**arguments)
        scores[reward.__name__] = [value if value is None else float(value) for value in found]
    return scores


def measure_references(chat: Chat, model: LoadedModel) -> tuple[Figure, list[ItemOutcome]]:
    """Bits per byte of the file's own answers, given their prompts. The token that ends one counts no bytes.

    An answer with a character that the tokenizer does not know is left out: the model is not asked which it is.
    """
    answered = [question for question in chat.questions if question.reference]
    pairs = [encode_completion(model.tokenizer, question.prompt, question.reference) for question in answered]
    unknown = unknown_token_id(model.tokenizer)
    fitting = [
        index
        for index, (prompt, answer) in enumerate(pairs)
        if len(prompt) + len(answer) <= model.context and unknown not in answer
    ]
    left_out = len(answered) - len(fitting)
    if not fitting:
        return figure_of([], BITS, left_out=left_out), []
    fitting_pairs = [pairs[index] for index in fitting]
    nats = -score_continuations(model.model, fitting_pairs, model.batch_size * model.context, model.bf16).nats.numpy()
    sizes = np.array([len(content(answered[index].reference).encode()) for index in fitting])
    items = [identify([answered[index].prompt, answered[index].reference]) for index in fitting]
    figure, outcomes = bits_per_byte(Chats.kind, chat.name, nats, sizes, items, {})
    return replace(figure, left_out=left_out), outcomes


def as_completion(question: Question, text: str) -> Answer:
    """An answer in the form of its prompt: text, or a list of one message."""
    return text if isinstance(question.prompt, str) else [{"role": "assistant", "content": text}]


def _ignore(*_: Any, **__: Any) -> None:
    """Stand-in for TRL's logging functions, which reward functions may call."""
