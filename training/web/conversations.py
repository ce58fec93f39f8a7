"""Conversations of the chat page, kept in a JSON lines file that `scratch sft` reads."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from training.common.errors import UserError
from training.common.files import write_whole
from training.corpus.sources.records import read_records
from training.model_io.messages import check_messages

MOST = 1000  # conversations in a file, which is written whole at each answer
TITLE = 60  # characters


class ConversationFile:
    """A file with a record a conversation: `id`, `messages`, and the `model` that answered.

    It is read again before each change, so that what another page or `/save` in the terminal added meanwhile stays.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """The records of the file by name, its own or that of its line.

        Raises:
            UserError: the file contains something else.
        """
        records: dict[str, dict[str, Any]] = {}
        for number, record in read_records(self.path) if self.path.exists() else ():
            try:
                record["messages"] = check_messages(record.get("messages"), "messages")
            except ValueError as error:
                raise UserError(f"{self.path}:{number}: {error}; choose another file") from None
            name = str(record.get("id", ""))
            records[name if name and name not in records else f"line-{number}"] = record
        return records

    def titles(self) -> list[dict[str, str]]:
        """`id` and `title`, the beginning of the first question, of each conversation, the latest first."""
        titles = []
        for name, record in reversed(self.records.items()):
            asked = [message["content"] for message in record["messages"] if message["role"] == "user"]
            titles.append({"id": name, "title": (asked or [""])[0].strip()[:TITLE] or "(empty)"})
        return titles

    def keep(self, name: str, messages: Any, model: str) -> None:
        """Add a conversation, or replace the one of this name.

        Raises:
            ValueError: not a list of messages, or too many conversations.
        """
        record = {"id": name, "messages": check_messages(messages, "messages"), "model": model}
        with self._alone():
            others = {key: other for key, other in self.records.items() if key != name}
            if len(others) >= MOST:
                raise ValueError(f"{self.path} has {MOST} conversations; move it away to begin another")
            self._write(others | {name: record})

    def delete(self, name: str) -> None:
        """Remove a conversation.

        Raises:
            KeyError: no such conversation.
        """
        with self._alone():
            records = self.records
            del records[name]
            self._write(records)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other pages on the same file from changing it meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            yield

    def _write(self, records: dict[str, dict[str, Any]]) -> None:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records.values()]
        write_whole(self.path, "".join(lines))
