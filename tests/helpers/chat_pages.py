"""The chat page's application with a tiny model, for tests."""

import contextlib

from tiny_stages import write_model, write_tokenizer

from training.model_io.language_model import open_language_model
from training.serving.app import ModelServer
from training.serving.engine import Engine
from training.web.chat_app import create_app
from training.web.conversations import ConversationFile
from training.web.guards import Guard


def endless_model(place):
    """A model, and its tokenizer, that never ends an answer by itself."""
    options = {"max_position_embeddings": 10**6}
    folder = write_model(place / "tiny", write_tokenizer(place / "tokenizer"), "sft", "llama", options)
    model, tokenizer = open_language_model(str(folder), "cpu")
    model.generation_config.eos_token_id = None
    return model, tokenizer


@contextlib.contextmanager
def application(model, file, chats=True):
    """The application, with its engine running and its guard around it."""
    kept = ConversationFile(file)
    network, tokenizer = model
    with Engine(network, tokenizer) as engine:
        yield Guard(create_app(ModelServer("tiny", engine, tokenizer), kept, chats))
