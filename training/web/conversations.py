"""Conversations of the chat page, kept in a JSON lines file that `scratch sft` reads."""

import json
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import write_whole
from training.corpus.sources.records import read_records
from training.model_io.messages import check_messages

MOST = 1000  # conversations in a file, which is written whole at each answer
TITLE = 60  # characters


class ConversationFile:
    """A file with a record a conversation: `id`, `messages`, and the `model` that answered.

    Raises:
        UserError: the file exists and contains something else.
    """

    def __init__(self, path: Path):
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}

    def open(self) -> None:
        """Read the file, if there is one."""
        for number, record in read_records(self.path) if self.path.exists() else ():
            try:
                check_messages(record.get("messages"), "messages")
            except ValueError as error:
                raise UserError(f"{self.path}:{number}: {error}; choose another file") from None
            self.records[str(record.get("id") or f"line-{number}")] = record

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
        checked = check_messages(messages, "messages")
        if name not in self.records and len(self.records) >= MOST:
            raise ValueError(f"{self.path} has {MOST} conversations; move it away to begin another")
        self._write({key: record for key, record in self.records.items() if key != name} | {
            name: {"id": name, "messages": checked, "model": model}
        })

    def delete(self, name: str) -> None:
        """Remove a conversation.

        Raises:
            KeyError: no such conversation.
        """
        if name not in self.records:
            raise KeyError(name)
        self._write({key: record for key, record in self.records.items() if key != name})

    def _write(self, records: dict[str, dict[str, Any]]) -> None:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records.values()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, "".join(lines))
        self.records = records
