"""Chat with a model, in the terminal or on a web page.

    scratch chat runs/quickstart/export --temperature 0.8
    scratch chat runs/quickstart/export --compare runs/quickstart/sft
    scratch chat runs/quickstart/pretrain --web

MODEL is the folder of a chat model, such as runs/quickstart/export, or a name on the Hub (owner/name). Enter sends a
line. A line that ends with a backslash continues in the next, and a pasted block is one message. Ctrl-C stops an answer
and keeps what was written so far; Ctrl-D quits. When the context is full, the model no longer sees the oldest turns. In
a pipe, every line is a message, and only the answers go to stdout.

--web opens a page on this computer: it shows the probabilities of every token and those of the likeliest others, and
keeps conversations in a file that `scratch sft` reads. A base model continues texts there.

Sampling follows the model's generation_config.json, except for the options that you set.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from training.chat.commands import command_list
from training.chat.sampling import Sampling
from training.common.errors import UserError
from training.stages.flags import parse
from training.stages.recipe import PathText, option, positional

if TYPE_CHECKING:
    from training.chat.session import Session
    from training.chat.terminal import Terminal


@dataclass(kw_only=True)
class ChatConfig(Sampling):
    """Options of `scratch chat`: sampling, and how the conversation starts."""

    model: PathText = positional("folder of a chat model, such as runs/quickstart/export, or a name on the Hub")
    system: str | None = option(None, "system prompt of the conversation")
    compare: PathText | None = option(
        None, "folder or Hub name of a second model that answers each message too"
    )
    web: bool = option(False, "chat on a web page instead of the terminal", group="Web page")
    host: str = option("127.0.0.1", "address to listen on; any other demands a token", group="Web page")
    port: int = option(8000, "port to listen on; 0 for a free one", at_least=0, below=2**16, group="Web page")
    conversations: PathText = option(
        "conversations.jsonl", "file that keeps the page's conversations", group="Web page"
    )

    def __post_init__(self):
        for key, default in (("host", "127.0.0.1"), ("port", 8000), ("conversations", "conversations.jsonl")):
            if not self.web and getattr(self, key) != default:
                raise ValueError(f"'{key}': has no effect in the terminal; add --web, or leave it out")
        if self.web and self.compare:
            raise ValueError("'compare': works in the terminal only; scratch arena compares models on a page")


def main(arguments: list[str]) -> None:
    """Load the model, then answer the lines of stdin until they end, or the requests of the page.

    Raises:
        UserError: a mistake in the arguments, a model that cannot be opened, or, in a pipe, any line that was rejected.
    """
    config = read_config(arguments)
    if config.web:
        serve_page(config)
        return

    from transformers.utils import logging

    from training.chat.model import ChatModel
    from training.chat.session import Session
    from training.chat.terminal import Terminal

    model = ChatModel.open(config.model)
    logging.set_verbosity_error()  # the notes of the session say what matters
    terminal = Terminal()
    session = Session(model, Sampling.of(config), terminal)
    session.start(config.system)
    if config.compare:
        session.compare(config.compare)
    if terminal.interactive:
        session.introduce()
    try:
        mistakes = converse(session, terminal)
    except BrokenPipeError:  # the reader of the answers has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if mistakes and not terminal.interactive:
        raise UserError(f"{mistakes} of the lines were rejected; see the errors above")


def serve_page(config: ChatConfig) -> None:
    """Take the port, load the model, and serve the page until a signal.

    Raises:
        UserError: an address, model or file of conversations that cannot be used.
    """
    from training.serving.listening import listen

    with listen(config.host, config.port) as listener:
        from transformers.utils import logging

        from training.model_io.language_model import open_language_model
        from training.serving.app import ModelServer
        from training.serving.engine import Engine
        from training.stages.provenance import written_by
        from training.web.chat_app import create_app
        from training.web.conversations import ConversationFile
        from training.web.run import run_pages

        conversations = ConversationFile(Path(config.conversations))
        conversations.titles()  # rejects a file of something else before the model is loaded
        model, tokenizer = open_language_model(config.model)
        logging.set_verbosity_error()  # its warnings about settings concern nobody who sends a request
        chats = tokenizer.chat_template is not None and written_by(config.model) != "pretrain"
        settings = config.as_request() | ({"system": config.system} if config.system else {})
        with Engine(model, tokenizer) as engine:
            server = ModelServer(config.model.rstrip("/"), engine, tokenizer)
            run_pages(create_app(server, conversations, chats), listener, config.host, urlencode(settings))


def read_config(arguments: list[str]) -> ChatConfig:
    """The model and the options of a command line.

    Raises:
        UserError: no model, an unknown option, or a wrong value.
    """
    usage = f"{__doc__.strip()}\n\nCommands in the conversation\n{command_list()}"
    return parse(ChatConfig, arguments, usage, recipe=False)


def converse(session: "Session", terminal: "Terminal") -> int:
    """Handle lines until they end; return the number of rejected ones, each of which was reported."""
    mistakes = 0
    while (line := terminal.read()) is not None:
        if not line.strip():
            continue
        try:
            if not session.handle_line(line):
                break
        except UserError as error:
            terminal.info(f"error: {error}")
            mistakes += 1
        except KeyboardInterrupt:
            if not terminal.interactive:
                raise
            terminal.info("stopped")
    return mistakes
