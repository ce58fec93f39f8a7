"""What is said at the keyboard: messages to one model or two, and commands about the conversation."""

import copy
import dataclasses
import re
import signal
from pathlib import Path

import torch

from training.chat.commands import COMMANDS, command_list
from training.chat.conversation import Conversation
from training.chat.model import Speaker
from training.chat.sampling import Sampling, describe
from training.chat.terminal import Terminal
from training.common.errors import UserError
from training.common.recipe import apply_overrides, build, nearest
from training.common.signals import Interrupted

_COMMAND = re.compile(r"/(\w+)(?:\s+(.*))?", re.DOTALL)


class Session:
    """The models that answer, one or two, each with its own side of the conversation.

    Raises:
        UserError: the model's template takes no system prompt.
    """

    def __init__(self, speaker: Speaker, system: str | None, sampling: Sampling, terminal: Terminal):
        self.speakers, self.sampling, self.terminal = [speaker], sampling, terminal
        self._seed()
        if system:
            self._set_system(system)

    def introduce(self) -> None:
        for speaker in self.speakers:
            millions, device = speaker.model.num_parameters() / 1e6, speaker.model.device.type
            self.terminal.tell(f"{speaker.name}: {millions:.1f}M parameters on {device}, sees {speaker.context} tokens")
        self.set("")
        self.terminal.tell("/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends")

    def take(self, said: str) -> bool:
        """A message, or a command. Returns whether the conversation goes on.

        Raises:
            UserError: a mistake in a command, or a message that a model cannot take. All is as it was before.
            Interrupted: by a signal that ends more than the answer.
        """
        match = _COMMAND.fullmatch(said.rstrip())
        if not match:
            self._say(said)
            return True
        name, argument = match[1], match[2] or ""
        if name not in COMMANDS:
            raise UserError(
                f"unknown command '/{name}'; {nearest(name, COMMANDS)} (with a space before it, it is a message)"
            )
        if argument and not COMMANDS[name].takes:
            raise UserError(f"/{name} takes nothing behind it, not '{argument}'")
        if name == "exit":
            return False
        getattr(self, name)(argument)
        return True

    def compare(self, model: str) -> None:
        if model in ("", "off"):
            if len(self.speakers) == 1:
                raise UserError("/compare takes the folder of another model, or its name on the Hub")
            self.terminal.tell(f"{self.speakers.pop().name} answers no more")
            return
        conversation = copy.deepcopy(self.speakers[0].conversation)
        question = conversation.undo() if conversation.messages else None
        other = Speaker.open(model)
        other.conversation = conversation
        if question is not None:
            other.check(question, conversation.system)
        self.speakers[1:] = [other]
        if question is not None:
            self._answer(other, question)

    def set(self, argument: str) -> None:
        if argument:
            key, _, value = argument.partition(" ")
            if not value:
                raise UserError(f"/set takes a key and a value, as in /set temperature 0.7, not '{argument}'")
            values = apply_overrides(dataclasses.asdict(self.sampling), {key: value})
            self.sampling = build(Sampling, values, "/set")
            if key == "seed":
                self._seed()
        for speaker in self.speakers:
            name = f"{speaker.name}: " if len(self.speakers) > 1 else ""
            self.terminal.tell(name + describe(self.sampling.applied(speaker.model.generation_config)))

    def system(self, text: str) -> None:
        self._set_system(text)
        self.terminal.tell("the system prompt holds from the next answer on" if text else "no system prompt")

    def retry(self, _: str) -> None:
        self._check_begun()
        for speaker in self.speakers:
            self._answer(speaker, speaker.conversation.undo())

    def undo(self, _: str) -> None:
        self._check_begun()
        for speaker in self.speakers:
            question = speaker.conversation.undo()
        self.terminal.tell(f"taken back: {question.splitlines()[0]}")

    def clear(self, _: str) -> None:
        for speaker in self.speakers:
            speaker.conversation = Conversation(speaker.conversation.system)
        self.terminal.tell("a new conversation")

    def save(self, file: str) -> None:
        if not file:
            raise UserError("/save takes the name of a file, such as conversations.jsonl")
        self._check_begun()
        for speaker in self.speakers:
            speaker.conversation.save(Path(file).expanduser(), speaker.name)
        self.terminal.tell(f"added to {file}: {' and '.join(speaker.name for speaker in self.speakers)}")

    def help(self, _: str) -> None:
        self.terminal.tell(command_list())

    def _say(self, message: str) -> None:
        for speaker in self.speakers:
            speaker.check(message, speaker.conversation.system)
        for speaker in self.speakers:
            self._answer(speaker, message)

    def _answer(self, speaker: Speaker, message: str) -> None:
        if len(self.speakers) > 1:
            self.terminal.write(f"[{speaker.name}]\n")
        answer = speaker.answer(message, self.sampling, self.terminal.write)
        self.terminal.write("\n")
        for note in answer.notes:
            self.terminal.tell(note)
        if answer.interrupted and not (self.terminal.interactive and answer.interrupted == signal.SIGINT):
            raise Interrupted(answer.interrupted, "stopped in an answer")
        if answer.interrupted:
            self.terminal.tell("stopped; /retry asks again, /undo takes the message back")

    def _set_system(self, text: str) -> None:
        for speaker in self.speakers:
            speaker.check("", text or None)
        for speaker in self.speakers:
            speaker.conversation.system = text or None

    def _seed(self) -> None:
        if self.sampling.seed is not None:
            torch.manual_seed(self.sampling.seed)

    def _check_begun(self) -> None:
        if not self.speakers[0].conversation.messages:
            raise UserError("nothing was said yet")
