"""Continue a text with a language model: scratch complete MODEL [TEXT] [--temperature 0.8] [--samples 3]

    scratch complete runs/quickstart/pretrain "def read_"
    echo "def read_" | scratch complete runs/quickstart/pretrain --temperature 0

MODEL is the folder of any causal language model, also one without a chat template, or a name on the Hub (owner/name).
Without TEXT, standard input is the text, without the line break at its end. The text and its continuation go to stdout,
token by token; everything else goes to stderr. Ctrl-C stops. Special tokens in the text, such as <|im_end|>, are text.

Sampling follows the model's generation_config.json, except for the options that you set.
"""

import sys
from dataclasses import dataclass

from training.chat.sampling import Sampling
from training.chat.terminal import VISIBLE, accept_any_text
from training.common.errors import UserError
from training.common.signals import Interrupted
from training.stages.flags import parse
from training.stages.recipe import PathText, option, positional

SEPARATOR = "-" * 15  # between several samples


@dataclass(kw_only=True)
class CompleteConfig(Sampling):
    """Options of `scratch complete`: sampling, and the number of samples."""

    model: PathText = positional("folder of a model, such as runs/quickstart/pretrain, or a name on the Hub")
    text: str | None = positional("text to continue; without it, standard input is read to its end", None)
    samples: int = option(1, "number of continuations", at_least=1)


def main(arguments: list[str]) -> None:
    """Load the model, and print the text with each continuation.

    Raises:
        UserError: a mistake in the arguments, a model that cannot be opened, or a text that it has no room for.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    config = parse(CompleteConfig, arguments, __doc__, recipe=False)
    accept_any_text()
    text = read_text() if config.text is None else config.text

    from transformers.utils import logging

    from training.chat.text_model import TextModel

    model = TextModel.open(config.model)
    logging.set_verbosity_error()
    if config.samples > 1 and not config.applied(model.model.generation_config).do_sample:
        raise UserError("'samples': the most likely tokens are the same each time; set a temperature above 0")
    ids = model.encode(text)
    config.set_seed()
    for number in range(config.samples):
        if number:
            print(SEPARATOR)
        write(text)
        reply = model.complete(ids, config, write)
        print(flush=True)
        for note in reply.notes:
            print(note, file=sys.stderr)
        if reply.interrupted:
            raise Interrupted(reply.interrupted, "stopped")


def read_text() -> str:
    """Standard input, without the line break at its end, which `echo` adds.

    Raises:
        UserError: it is a terminal.
    """
    if sys.stdin.isatty():
        raise UserError("'text' is missing; write it after the model, or send it through a pipe")
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def write(piece: str) -> None:
    """Write to stdout without delay; in a terminal, with control characters as visible symbols."""
    print(piece.translate(VISIBLE) if sys.stdout.isatty() else piece, end="", flush=True)
