"""Serve a model with an OpenAI-compatible API.

    scratch serve runs/quickstart/export --port 8000

MODEL is a folder or a name on the Hub, and requests use that name. A model with a chat template answers conversations
(/v1/chat/completions); every model continues texts (/v1/completions). Several answers are generated at a time. As in
`scratch chat`, special tokens in a request are text: only the chat template writes control tokens. Sampling follows the
model's generation_config.json, except for what a request sets.
"""

import json
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from training.serving.origins import is_local
from training.stages.flags import parse
from training.stages.recipe import PathText, option, positional

if TYPE_CHECKING:
    from training.serving.engine import Engine


@dataclass
class ServeConfig:
    """Options of `scratch serve`."""

    model: PathText = positional("folder of a model, such as runs/quickstart/export, or a name on the Hub")
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 for other machines too", group="Server")
    port: int = option(8000, "port to listen on; 0 for a free one", at_least=0, below=2**16, group="Server")
    api_key: str | None = option(None, "key that requests must send as bearer token", group="Server")
    max_batch: int = option(16, "answers generated at a time", at_least=1, group="Server")
    max_queue: int = option(128, "answers waiting; further requests get the status 503", at_least=1, group="Server")
    device: str | None = option(None, "device, such as cuda:0 or cpu; default: the fastest", group="Model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "data type of the weights; auto: as stored", group="Model"
    )


def main(arguments: list[str]) -> None:
    """Take the port, load the model, answer requests until a signal.

    Raises:
        UserError: a model that cannot be opened, or an address that cannot be used.
    """
    config = parse(ServeConfig, arguments, __doc__, recipe=False)
    from training.serving.listening import address_of, listen, serve

    with listen(config.host, config.port) as listener:
        from transformers.utils import logging

        from training.model_io.language_model import open_language_model
        from training.serving.app import ModelServer
        from training.serving.engine import Engine

        model, tokenizer = open_language_model(config.model, config.device, config.dtype)
        logging.set_verbosity_error()  # its warnings about settings concern nobody who sends a request
        name = config.model.rstrip("/")
        with Engine(model, tokenizer, config.max_batch, config.max_queue) as engine:
            server = ModelServer(name, engine, tokenizer, config.api_key, is_local(config.host))
            introduce(config, name, engine, f"http://{address_of(listener)}", tokenizer.chat_template is not None)
            serve(server.app(), listener)


def introduce(config: ServeConfig, name: str, engine: "Engine", address: str, chats: bool) -> None:
    """Print the model, the address and an example."""
    model = engine.model
    millions, device = model.num_parameters() / 1e6, model.device.type
    print(f"{name}: {millions:.1f}M parameters on {device}, context {engine.context} tokens", file=sys.stderr)
    if not chats:
        print("no chat template: it continues texts (/v1/completions) and answers no conversations", file=sys.stderr)
    if not engine.batches:
        print("this architecture generates one answer at a time", file=sys.stderr)
    if not is_local(config.host) and config.api_key is None:
        print("other machines can use it without a key; set --api_key to demand one", file=sys.stderr)
    print(f"serving at {address}/v1, until Ctrl-C; for example:", file=sys.stderr)
    question = {"messages": [{"role": "user", "content": "Hello"}]} if chats else {"prompt": "Once upon a time"}
    body = json.dumps({"model": name} | question | {"max_tokens": 60})
    key = " -H 'Authorization: Bearer KEY'" if config.api_key else ""
    path = "chat/completions" if chats else "completions"
    print(
        f"  curl {address}/v1/{path}{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}",
        file=sys.stderr,
        flush=True,
    )
