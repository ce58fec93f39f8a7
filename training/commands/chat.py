"""Talk to a model in the terminal: scratch chat MODEL [--system TEXT] [--temperature 0.8] [--compare OTHER]

MODEL is the folder of a chat model, such as runs/quickstart/export, or a name on the Hub. A line is sent when you press
Enter; one that ends with a backslash goes on in the next, and a pasted block is one message. Ctrl-C stops an answer,
and what was said by then stays; Ctrl-D ends. When its context is full, the model forgets the oldest turns. Piped in,
every line is a message, and only the answers come out.

How tokens are drawn is for the model's own generation_config.json to say, and for these:
"""

import os
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from training.chat.commands import command_list
from training.chat.sampling import Sampling
from training.common.errors import UserError
from training.common.help import describe
from training.common.recipe import apply_overrides, build, option, split_overrides

if TYPE_CHECKING:
    from training.chat.session import Session
    from training.chat.terminal import Terminal

VERBATIM = ("system", "compare")  # taken as they are written, not as YAML


@dataclass
class ChatConfig(Sampling):
    system: str | None = option(None, "a system prompt, which opens the conversation")
    compare: str | None = option(None, "another model, which answers each message too")


def main(arguments: list[str]) -> None:
    if "--help" in arguments or "-h" in arguments:
        print(f"{__doc__.rstrip()}\n\n{describe(ChatConfig)}\n\nIn the conversation:\n\n{command_list()}")
        return
    model, config = read_config(arguments)
    sampling = Sampling(**{field.name: getattr(config, field.name) for field in fields(Sampling)})

    from transformers.utils import logging

    from training.chat.model import Speaker
    from training.chat.session import Session
    from training.chat.terminal import Terminal

    speaker = Speaker.open(model)
    logging.set_verbosity_error()  # what is worth telling is told here, in a line
    terminal = Terminal()
    session = Session(speaker, config.system, sampling, terminal)
    if config.compare:
        session.compare(config.compare)
    if terminal.interactive:
        session.introduce()
    try:
        mistakes = converse(session, terminal)
    except BrokenPipeError:  # whoever reads the answers has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if mistakes and not terminal.interactive:
        raise UserError(f"{mistakes} of the lines could not be taken; see above")


def read_config(arguments: list[str]) -> tuple[str, ChatConfig]:
    """The model and the flags.

    Raises:
        UserError: a mistake in them.
    """
    if not arguments or arguments[0].startswith("--"):
        raise UserError("scratch chat begins with the model, as in scratch chat runs/quickstart/export --temperature 0")
    model, *flags = arguments
    overrides = split_overrides(flags)
    verbatim = {key: overrides.pop(key) for key in VERBATIM if key in overrides}
    return model, build(ChatConfig, apply_overrides({}, overrides) | verbatim, "command line")


def converse(session: "Session", terminal: "Terminal") -> int:
    """Take what is said until the end. Returns how often it could not be taken, which was told each time."""
    mistakes = 0
    while (said := terminal.read()) is not None:
        if not said.strip():
            continue
        try:
            if not session.take(said):
                break
        except UserError as error:
            terminal.tell(f"error: {error}")
            mistakes += 1
        except KeyboardInterrupt:
            if not terminal.interactive:
                raise
            terminal.tell("stopped")
    return mistakes
