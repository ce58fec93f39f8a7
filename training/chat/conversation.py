"""A conversation: what was said, and how much of it the model still sees."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from training.common.errors import UserError

Message = dict[str, str]  # role and content


@dataclass
class Conversation:
    """Messages of user and assistant in turn.

    Attributes:
        system: what opens it, outside the turns; it is never forgotten.
        forgotten: how many of the oldest messages the model does not see any more.
    """

    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    forgotten: int = 0

    def ask(self, content: str) -> None:
        self.messages.append({"role": "user", "content": content})

    def answer(self, content: str) -> None:
        self.messages.append({"role": "assistant", "content": content})

    def opening(self) -> list[Message]:
        return [{"role": "system", "content": self.system}] if self.system else []

    def seen(self) -> list[Message]:
        """What the model is shown."""
        return self.opening() + self.messages[self.forgotten :]

    def forget(self) -> bool:
        """Hide the oldest turn that is still seen from the model. False where only the last message is left."""
        if self.forgotten + 2 >= len(self.messages):
            return False
        self.forgotten += 2
        return True

    def undo(self) -> str:
        """Take the last turn away. Returns what the user said in it."""
        *self.messages, question, _ = self.messages
        self.forgotten = 0  # there is more room again
        return question["content"]

    def save(self, file: Path, model: str) -> None:
        """Add it to a file of JSON lines, each a record with `messages`, as `scratch sft` reads them.

        Args:
            model: who answered, for `model` in the record.

        Raises:
            UserError: the file holds something else, or cannot be written.
        """
        record = {"messages": self.opening() + self.messages, "model": model}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            before = file.read_bytes() if file.exists() else b""
            if before and not _is_conversation(before.splitlines()[0]):
                raise UserError(f"{file} is there already and holds no conversations; choose another name")
            with file.open("ab") as lines:
                lines.write(line if before[-1:] in (b"", b"\n") else b"\n" + line)
        except OSError as error:
            raise UserError(f"{file} cannot be written ({error.strerror})") from None


def _is_conversation(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and "messages" in record
