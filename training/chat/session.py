"""A chat session: messages to one model or two, and commands about the conversation."""

import copy
import dataclasses
import re
import signal
from pathlib import Path

from training.chat.commands import COMMANDS, command_list
from training.chat.conversation import Conversation
from training.chat.model import ChatModel
from training.chat.sampling import Sampling, describe
from training.chat.terminal import Terminal
from training.chat.text_model import Reply
from training.common.errors import UserError
from training.common.signals import Interrupted
from training.stages.flags import apply_overrides
from training.stages.recipe import build, local_path, nearest

_COMMAND = re.compile(r"/(\w+)(?:\s+(.*))?", re.DOTALL)


class Session:
    """One model or two that answer, each with its own conversation. Every command is a method of its name."""

    def __init__(self, model: ChatModel, sampling: Sampling, terminal: Terminal):
        self.models, self.sampling, self.terminal = [model], sampling, terminal
        self.replies: dict[ChatModel, Reply] = {}  # the last of each model

    def start(self, system: str | None = None) -> None:
        """Apply the random seed and the system prompt.

        Raises:
            UserError: the model's template does not accept a system prompt.
        """
        self.sampling.set_seed()
        if system:
            self._set_system(system)

    def introduce(self) -> None:
        """Show each model, the settings and the most important keys."""
        for model in self.models:
            millions, device = model.model.num_parameters() / 1e6, model.model.device.type
            self.terminal.info(f"{model.name}: {millions:.1f}M parameters on {device}, context {model.context} tokens")
        self.set("")
        self.terminal.info("/help lists the commands, Ctrl-C stops an answer, Ctrl-D quits")

    def handle_line(self, line: str) -> bool:
        """Answer a message or run a command; return False if the session ends.

        Raises:
            UserError: a mistake in a command, or a message that a model cannot take; nothing has changed.
            Interrupted: by a signal that ends more than the answer.
        """
        match = _COMMAND.fullmatch(line.rstrip())
        if not match:
            self._ask(line)
            return True
        name, argument = match[1], match[2] or ""
        if name not in COMMANDS:
            raise UserError(
                f"unknown command '/{name}'; {nearest(name, COMMANDS)} (to send it as a message, begin with a space)"
            )
        if argument and not COMMANDS[name].argument:
            raise UserError(f"/{name} takes no argument; leave '{argument}' out")
        if name == "exit":
            return False
        getattr(self, name)(argument)
        return True

    def compare(self, name: str) -> None:
        if name in ("", "off"):
            if len(self.models) == 1:
                raise UserError("/compare needs the folder of another model, or its name on the Hub")
            self.terminal.info(f"{self.models.pop().name} no longer answers")
            return
        conversation = copy.deepcopy(self.models[0].conversation)
        question = conversation.undo() if conversation.messages else None
        other = ChatModel.open(local_path(name))
        other.conversation = conversation
        if question is not None:
            other.check(question, conversation.system)
        self.models[1:] = [other]
        if question is not None:
            self._answer(other, question)

    def set(self, argument: str) -> None:
        if argument:
            key, _, value = argument.partition(" ")
            if not value:
                raise UserError(f"/set needs a key and a value, as in /set temperature 0.7, not '{argument}'")
            values = apply_overrides(dataclasses.asdict(self.sampling), {key: value})
            self.sampling = build(Sampling, values, "/set")
            if key == "seed":
                self.sampling.set_seed()
        for model in self.models:
            name = f"{model.name}: " if len(self.models) > 1 else ""
            self.terminal.info(name + describe(self.sampling.applied(model.model.generation_config)))

    def system(self, text: str) -> None:
        self._set_system(text)
        self.terminal.info("system prompt set; the next answer uses it" if text else "no system prompt")

    def retry(self, _: str) -> None:
        self._check_begun()
        for model in self.models:
            self._answer(model, model.conversation.undo())

    def undo(self, _: str) -> None:
        self._check_begun()
        for model in self.models:
            question = model.conversation.undo()
        self.terminal.info(f"removed: {question.splitlines()[0]}")

    def clear(self, _: str) -> None:
        for model in self.models:
            model.conversation = Conversation(model.conversation.system)
        self.terminal.info("new conversation")

    def save(self, file: str) -> None:
        if not file:
            raise UserError("/save needs the name of a file, such as conversations.jsonl")
        self._check_begun()
        for model in self.models:
            model.conversation.save(Path(local_path(file)), model.name)
        self.terminal.info(f"added to {file}: {' and '.join(model.name for model in self.models)}")

    def speed(self, _: str) -> None:
        self._check_begun()
        for model in self.models:
            if reply := self.replies.get(model):
                rate = reply.tokens / reply.seconds
                self.terminal.info(f"{model.name}: {reply.tokens} tokens in {reply.seconds:.1f} s, {rate:.1f} tokens/s")

    def help(self, _: str) -> None:
        self.terminal.info(command_list())

    def _ask(self, message: str) -> None:
        for model in self.models:
            model.check(message, model.conversation.system)
        for model in self.models:
            self._answer(model, message)

    def _answer(self, model: ChatModel, message: str) -> None:
        if len(self.models) > 1:
            self.terminal.write(f"[{model.name}]\n")
        reply = model.answer(message, self.sampling, self.terminal.write)
        self.replies[model] = reply
        self.terminal.write("\n")
        for note in reply.notes:
            self.terminal.info(note)
        if reply.interrupted and not (self.terminal.interactive and reply.interrupted == signal.SIGINT):
            raise Interrupted(reply.interrupted, "stopped during an answer")
        if reply.interrupted:
            self.terminal.info("stopped; /retry answers again, /undo removes the message")

    def _set_system(self, text: str) -> None:
        for model in self.models:
            model.check("", text or None)
        for model in self.models:
            model.conversation.system = text or None

    def _check_begun(self) -> None:
        if not self.models[0].conversation.messages:
            raise UserError("the conversation is empty; write a message first")
