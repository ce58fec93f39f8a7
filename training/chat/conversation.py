"""A conversation: its messages, and which of them are still in the model's context."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from training.common.errors import UserError, one_line

Message = dict[str, str]  # role and content


@dataclass
class Conversation:
    """Messages of user and assistant in turn.

    Attributes:
        system: the system prompt, which is never dropped.
        forgotten: number of oldest messages that the model no longer sees.
    """

    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    forgotten: int = 0

    def ask(self, content: str) -> None:
        """Append a message of the user."""
        self.messages.append({"role": "user", "content": content})

    def answer(self, content: str) -> None:
        """Append a message of the assistant."""
        self.messages.append({"role": "assistant", "content": content})

    def opening(self) -> list[Message]:
        """The system prompt as a message, if there is one."""
        return [{"role": "system", "content": self.system}] if self.system else []

    def seen(self) -> list[Message]:
        """The messages that the model sees."""
        return self.opening() + self.messages[self.forgotten :]

    def forget(self) -> bool:
        """Drop the oldest turn that the model sees; return False if only the last message is left."""
        if self.forgotten + 2 >= len(self.messages):
            return False
        self.forgotten += 2
        return True

    def undo(self) -> str:
        """Remove the last turn and return its question."""
        *self.messages, question, _ = self.messages
        self.forgotten = 0  # the context has room again
        return question["content"]

    def save(self, file: Path, model: str) -> None:
        """Append the conversation to a JSON lines file, as a record with `messages`, which `scratch sft` reads.

        Args:
            model: the name that the record gives as `model`.

        Raises:
            UserError: the file contains something else, or cannot be written.
        """
        record = {"messages": self.opening() + self.messages, "model": model}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            if file.exists() and not file.is_file():  # a device may have no end
                raise UserError(f"{file} cannot be written (not a regular file); choose another name")
            with file.open("a+b") as lines:
                lines.seek(0)
                first = lines.readline()
                if first and not _is_conversation(first):
                    raise UserError(f"{file} exists and does not contain conversations; choose another name")
                lines.seek(-1 if first else 0, os.SEEK_END)
                lines.write(line if lines.read() in (b"", b"\n") else b"\n" + line)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = one_line(getattr(error, "strerror", None) or error)
            raise UserError(f"{str(file)!r} cannot be written ({reason}); choose another place") from None


def _is_conversation(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and "messages" in record
