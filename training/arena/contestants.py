"""Contestants of an arena: models of folders or the Hub, each with an engine of its own, and endpoints."""

import asyncio
import contextlib
import copy
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

from transformers.utils import CONFIG_NAME

from training.arena.endpoints import Endpoint, is_address
from training.common.errors import UserError
from training.common.files import sha256
from training.common.hub_names import is_hub_name
from training.model_io.conversations import encode_prompt
from training.model_io.language_model import open_language_model
from training.model_io.model_folder import GENERATION_CONFIG, TEKKEN, TOKENIZER_FILES
from training.serving.engine import Engine, Request
from training.serving.settings import AnswerSettings

LONGEST_ANSWER = 20_000  # characters, above which an answer counts as one without end
MOST_SECONDS = 300  # of an answer
QUEUE = 1000  # answers that may wait for a model: more than all battles at once
SHORTEST_WORD = 3  # letters of a name by which an answer can tell who wrote it


class Contestant(Protocol):
    """A model that takes part.

    Attributes:
        name: as tables show it.
        fingerprint: what identifies its weights and settings, or its address.
    """

    name: str
    fingerprint: str

    def answer(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> AsyncIterator[str]:
        """The pieces of an answer. An exception of any kind means that it failed.

        Args:
            messages: the conversation, which ends with a prompt.
            settings: of sampling, by the names of OpenAI's interface: `temperature`, `max_tokens`, `seed`, ...
        """


class LocalModel:
    """A contestant that the engine of this process generates.

    Attributes:
        name: folder or Hub name, as the leaderboard shows it.
        fingerprint: changes when the folder's weights, tokenizer or settings do.
    """

    def __init__(self, name: str, engine: Engine, fingerprint: str):
        self.name, self.engine, self.fingerprint = name, engine, fingerprint
        self._tokenizer = copy.deepcopy(engine.tokenizer)  # the engine's own is used by its thread

    async def answer(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> AsyncIterator[str]:
        """The pieces of an answer; see `Contestant`."""
        renamed = {"max_tokens": "max_new_tokens"}
        chosen = AnswerSettings(**{renamed.get(key, key): value for key, value in settings.items()})
        request = Request(encode_prompt(self._tokenizer, messages), chosen)
        async with self.engine.answer(request) as pieces:
            async for _, piece in pieces:
                if piece.error:
                    raise RuntimeError(piece.error)
                if piece.text:
                    yield piece.text


def fingerprint(name: str) -> str:
    """A digest of a folder's files that decide what the model answers; of a Hub name the name."""
    if is_hub_name(name):
        return name
    decisive = {CONFIG_NAME, GENERATION_CONFIG, *TOKENIZER_FILES, TEKKEN}
    files = [path for path in Path(name).iterdir() if path.name in decisive or path.suffix == ".safetensors"]
    digests = [f"{path.name} {sha256(path)}" for path in sorted(files) if path.is_file()]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]


@contextlib.contextmanager
def opened(names: list[str]) -> Iterator[list[Contestant]]:
    """The contestants of folders, Hub names and URLs.

    Raises:
        UserError: one that cannot be opened or has no chat template, or the same one twice.
    """
    if doubled := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{', '.join(sorted(doubled))}: given twice; each contestant is given once")
    with contextlib.ExitStack() as engines:
        contestants: list[Contestant] = []
        for name in names:
            if is_address(name):
                contestants.append(Endpoint.open(name))
                continue
            model, tokenizer = open_language_model(name)
            if tokenizer.chat_template is None:
                raise UserError(f"{name}: has no chat template; contestants are models of `scratch sft` or later")
            engine = engines.enter_context(Engine(model, tokenizer, max_queue=QUEUE))
            contestants.append(LocalModel(name.rstrip("/"), engine, fingerprint(name)))
        for first, second in itertools.combinations(contestants, 2):
            if first.fingerprint == second.fingerprint:
                raise UserError(f"{second.name}: is the same model as {first.name}; contestants differ")
        yield contestants


async def bounded_answer(
    contestant: Contestant, messages: list[dict[str, str]], settings: dict[str, Any]
) -> AsyncIterator[str]:
    """The pieces of an answer that says something and ends.

    Raises:
        Exception: of any kind; the contestant failed, hung, or gave nothing or an answer without end.
    """
    length, says_something = 0, False
    async with asyncio.timeout(MOST_SECONDS):
        async for piece in contestant.answer(messages, settings):
            yield piece
            length, says_something = length + len(piece), says_something or bool(piece.strip())
            if length > LONGEST_ANSWER:
                raise ValueError(f"its answer is longer than {LONGEST_ANSWER:,} characters")
    if not says_something:
        raise ValueError("its answer is empty")


def identity_words(contestants: list[Contestant]) -> list[str]:
    """Words by which an answer would tell who wrote it: a contestant's name, and its last part if no other has it."""
    owners = Counter(word for each in contestants for word in {each.name, each.name.rpartition("/")[2]})
    return sorted(word for word, count in owners.items() if count == 1 and len(word) >= SHORTEST_WORD)


def says_name(text: str, words: list[str]) -> bool:
    """Whether a text has one of these words."""
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)
