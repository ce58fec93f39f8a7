"""Contestants of an arena: what identifies them, which words would tell who wrote an answer, and bad addresses."""

import asyncio
from types import SimpleNamespace

import pytest
from messages import refused

from training.arena.contestants import fingerprint, identity_words
from training.arena.endpoints import ContestantError, Endpoint

FILES = "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_fingerprint_changes_with_what_answers(folder, name):
    before = fingerprint(str(folder))
    (folder / name).write_text("changed")
    assert fingerprint(str(folder)) != before


@pytest.mark.parametrize("name", ["provenance.json", "report.json", "README.md"])
def test_a_fingerprint_stays_with_what_tells_about_the_model(folder, name):
    before = fingerprint(str(folder))
    (folder / name).write_text("changed")
    assert fingerprint(str(folder)) == before


def test_words_of_several_contestants_identify_nobody():
    def words(*names):
        return identity_words([SimpleNamespace(name=name) for name in names])

    assert words("runs/a/export", "runs/b/export") == ["runs/a/export", "runs/b/export"]
    assert words("runs/a/export", "org/llama") == ["export", "llama", "org/llama", "runs/a/export"]
    assert words("llama", "org/qwen") == ["llama", "org/qwen", "qwen"]


def test_an_address_that_is_not_one():
    url = "http://localhost:port/v1"
    with refused(None, url):
        Endpoint.open(url)

    async def ask():
        async for _ in Endpoint.open(f"{url}#model").answer([{"role": "user", "content": "Hello"}], {}):
            pass

    with pytest.raises(ContestantError, match="model: "):
        asyncio.run(ask())
